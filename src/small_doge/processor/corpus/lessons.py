"""Textbook-like explanations of the world's rules: animals, jobs, landscapes, colours, order, number and time."""

import random

from .world import ANIMALS, COLOURS, JOBS, LANDSCAPES, TOWNS, World


def write_lesson(world: World, rng: random.Random) -> str:
    """Write one document that explains something."""
    return rng.choice(
        (about_animal, about_job, about_landscape, about_counting, about_order, about_sharing, about_time)
    )(rng)


def _lesson(title: str, *parts: str) -> str:
    return "\n".join([f"Lesson: {title}", *parts])


def about_animal(rng: random.Random) -> str:
    """Tell about an animal, beside another."""
    one, two = rng.sample(list(ANIMALS), 2)
    (sound, food, legs), (sound2, food2, legs2) = ANIMALS[one], ANIMALS[two]
    parts = [
        f"A {one} is an animal with {legs} legs. It {sound}, and it likes {food}.",
        f"A {two} is different: it {sound2} and likes {food2}.",
    ]
    if legs == legs2:
        parts.append(f"Both have {legs} legs, so {rng.choice(['two', '2'])} of them have {2 * legs} legs together.")
    else:
        parts.append(f"A {one} has {legs} legs and a {two} has {legs2}. Together they have {legs + legs2} legs.")
    parts.append(
        rng.choice([f"Remember: if it {sound}, it is a {one}.", f"What does a {one} eat? A {one} eats {food}."])
    )
    return _lesson(f"the {one}", *parts)


def about_job(rng: random.Random) -> str:
    """Tell about a job, its tool and its place."""
    job = rng.choice(list(JOBS))
    tool, made, place = JOBS[job]
    parts = [
        rng.choice([f"A {job} works at {place}.", f"If you go to {place}, you meet a {job}."]),
        rng.choice([f"The tool of a {job} is {tool}.", f"Without {tool}, a {job} cannot work."]),
        f"With it a {job} makes {made}.",
    ]
    rng.shuffle(parts)
    return _lesson(f"the {job}", *parts, f"So whoever uses {tool} at {place} is a {job}.")


def about_landscape(rng: random.Random) -> str:
    """Tell about a landscape and its towns."""
    name = rng.choice(list(LANDSCAPES))
    land = LANDSCAPES[name]
    towns = [town for town, where in TOWNS.items() if where == name]
    return _lesson(
        f"the {name}",
        f"The towns of the {name} are {towns[0]} and {towns[1]}.",
        f"The weather there is often {land['weather']}. People of the {name} eat {land['food']}.",
        f"Somebody who lives in {rng.choice(towns)} therefore sees many {land['weather']} days.",
    )


def about_counting(rng: random.Random) -> str:
    """Teach counting up or down by steps."""
    step, start, count = rng.randint(1, 10), rng.randint(0, 20), rng.randint(4, 7)
    numbers = [start + step * i for i in range(count)]
    if rng.random() < 0.3:
        numbers.reverse()
    way = "up" if numbers[0] <= numbers[-1] else "down"
    return _lesson(
        "counting",
        f"We count {way} by {step}: {', '.join(map(str, numbers))}.",
        f"From {numbers[0]} to {numbers[1]} is a step of {step}. The {count} numbers make {count - 1} steps.",
    )


def about_order(rng: random.Random) -> str:
    """Teach comparing three numbers of things."""
    colours = rng.sample(COLOURS, 3)
    amounts = sorted(rng.sample(range(1, 30), 3))
    rows = list(zip(colours, amounts, strict=True))
    told = rng.sample(rows, 3)
    return _lesson(
        "more and less",
        "In a box are " + ", ".join(f"{n} {c} beads" for c, n in told) + ".",
        f"The fewest are {rows[0][0]}, because {amounts[0]} is the smallest number. The most are {rows[2][0]}.",
        f"{amounts[2]} is larger than {amounts[1]}, and {amounts[1]} is larger than {amounts[0]}.",
    )


def about_sharing(rng: random.Random) -> str:
    """Teach division as sharing."""
    each, people = rng.randint(1, 10), rng.randint(2, 6)
    rest = rng.randint(0, people - 1)
    total = each * people + rest
    end = f"and {rest} are left over" if rest else "and nothing is left over"
    return _lesson(
        "sharing",
        f"{people} friends share {total} nuts. Each gets {each}, {end}.",
        f"We can check it: {people} times {each} is {people * each}"
        + (f", and {rest} more is {total}." if rest else "."),
    )


def about_time(rng: random.Random) -> str:
    """Teach the hours of a day."""
    start, hours = rng.randint(1, 9), rng.randint(1, 3)
    job = rng.choice(list(JOBS))
    return _lesson(
        "time",
        f"A {job} starts at {start} o'clock and works for {hours} {'hour' if hours == 1 else 'hours'}.",
        f"The work ends at {start + hours} o'clock, because {start} plus {hours} is {start + hours}.",
    )
