"""Texts about the people of the world: portraits, errands, gifts that change hands, questions with answers."""

import random

from .questions import QUESTION_FORMS, answer_sentence
from .random_source import is_held_out
from .world import ANIMALS, JOBS, LANDSCAPES, OBJECTS, TOWNS, Person, World


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
TIMES = ["in the morning", "at noon", "in the afternoon", "in the evening", "after breakfast", "before supper"]


def write_story(world: World, rng: random.Random) -> str:
    """Write one document about the world."""
    form = rng.choices((portrait, errand, gifts, conversation, town_letter), (5, 4, 3, 3, 2))[0]
    return form(world, rng)


def _person(world: World, rng: random.Random) -> Person:
    return rng.choice(list(world.people.values()))


def fact_sentences(person: Person, rng: random.Random) -> list[str]:
    """Write every fact of a person, each in one of several wordings, in random order."""
    p, he, his = person, person.pronoun, person.possessive
    tool, made, place = JOBS[p.job]
    sound, food, _ = ANIMALS[p.animal]
    land = LANDSCAPES[p.landscape]
    options = [
        [f"{p.name} lives in {p.town}.", f"{p.name} comes from {p.town}.", f"The home of {p.name} is in {p.town}."],
        [
            f"{p.name} is a {p.job} and works at {place}.",
            f"{p.name} works as a {p.job}.",
            f"At {place} you can find {p.name}, who is a {p.job}.",
        ],
        [
            f"As a {p.job}, {p.name} uses {tool} and makes {made}.",
            f"{p.name} needs {tool}, because {he} is a {p.job}.",
        ],
        [
            f"{p.name} has a {p.pet_colour} {p.animal} called {p.pet_name}.",
            f"{p.name} keeps a {p.animal}. It is {p.pet_colour}, and its name is {p.pet_name}.",
            f"The {p.animal} of {p.name} is {p.pet_colour} and is called {p.pet_name}.",
        ],
        [
            f"{p.pet_name} {sound} and likes {food}, as every {p.animal} does.",
            f"Like every {p.animal}, the one that {p.name} keeps {sound} when it wants {food}.",
        ],
        [
            f"{p.name} owns a {p.object_colour} {p.object}.",
            f"The {p.object} of {p.name} is {p.object_colour}.",
            f"{p.name} never goes out without {his} {p.object_colour} {p.object}.",
        ],
        [
            f"{p.name} and {p.friend} are friends.",
            f"The best friend of {p.name} is {p.friend}.",
            f"{p.name} likes to visit {his} friend {p.friend}.",
        ],
        [
            f"It is often {land['weather']} in {p.town}, where {p.name} lives.",
            f"{p.name} lives near the {p.landscape}, so {he} knows {land['weather']} days well.",
        ],
    ]
    return [rng.choice(choice) for choice in rng.sample(options, len(options))]


def portrait(world: World, rng: random.Random) -> str:
    """Tell what one or two people are like, and what follows when both are known."""
    one = _person(world, rng)
    sentences = fact_sentences(one, rng)[: rng.randint(4, 8)]
    if rng.random() < 0.5:
        two = world.people[one.friend] if rng.random() < 0.5 else _person(world, rng)
        if two.name != one.name:
            sentences += fact_sentences(two, rng)[: rng.randint(2, 5)]
            sentences.append(_comparison(one, two))
    return " ".join(sentences)


def _comparison(one: Person, two: Person) -> str:
    pair = f"{one.name} and {two.name}"
    if one.town == two.town:
        return f"So {pair} live in the same town, {one.town}."
    if one.job == two.job:
        return f"So {pair} have the same job: both work as a {one.job}."
    if one.animal == two.animal:
        return f"So {pair} both keep a {one.animal}."
    return f"So {pair} live in different towns: {one.town} and {two.town}."


def errand(world: World, rng: random.Random) -> str:
    """Tell a day of one person: work, weather, a visit to the friend."""
    p = _person(world, rng)
    friend = world.people[p.friend]
    he, his = p.pronoun, p.possessive
    tool, made, place = JOBS[p.job]
    sound, food, legs = ANIMALS[p.animal]
    land = LANDSCAPES[p.landscape]
    day, time = rng.choice(DAYS), rng.choice(TIMES)
    start = rng.choice(
        [
            f"On {day} {p.name} got up early in {p.town}.",
            f"It was a {land['weather']} {day} in {p.town}, and {p.name} was awake.",
            f"{time.capitalize()} on {day}, {p.name} opened the door of {his} house in {p.town}.",
        ]
    )
    pet = rng.choice(
        [
            f"{p.pet_name} the {p.animal} wanted {food}, and {he} gave it some.",
            f"{p.pet_name}, {his} {p.pet_colour} {p.animal}, {sound} and ran about on its {legs} legs.",
        ]
    )
    work = rng.choice(
        [
            f"Then {he} went to {place}, because {he} is a {p.job}, and took {tool}.",
            f"At {place} {he} worked as a {p.job} and made {made}.",
        ]
    )
    lost = [
        f"On the way home {he} missed {his} {p.object_colour} {p.object}. It was at {place}.",
        f"{he.capitalize()} carried {his} {p.object}, which is {p.object_colour}.",
    ]
    visit = rng.choice(
        [
            f"Later {he} went to {friend.town} to see {his} friend {friend.name}, who is a {friend.job}.",
            f"{time.capitalize()} {friend.name} came from {friend.town}, and the two friends ate {land['food']}.",
        ]
    )
    middle = [pet, work, rng.choice(lost)]
    rng.shuffle(middle)
    end = rng.choice(
        [f"Near {land['sight']} they said goodbye.", "Then it was time to sleep.", "It had been a good day."]
    )
    return " ".join([start, *middle, visit, end])


def gifts(world: World, rng: random.Random) -> str:
    """Tell how a thing goes from hand to hand; who has it in the end follows from the text alone."""
    people = rng.sample(list(world.people), rng.randint(2, 4))
    thing = rng.choice(OBJECTS)
    holder, lines = people[0], [f"{people[0]} found a {thing}."]
    for _ in range(rng.randint(1, 4)):
        receiver = rng.choice([name for name in people if name != holder])
        lines.append(
            rng.choice(
                [
                    f"{holder} gave the {thing} to {receiver}.",
                    f"Then {holder} handed the {thing} to {receiver}.",
                    f"{receiver} got the {thing} from {holder}.",
                ]
            )
        )
        holder = receiver
    absent = rng.choice([name for name in people if name != holder])
    ends = [f"Now {holder} has the {thing}.", f"In the end the {thing} belongs to {holder}, not to {absent}."]
    if not is_held_out("gift", people[0], thing):
        ends.append(f"Who has the {thing} now? {holder} has it.")
    return " ".join([*lines, rng.choice(ends)])


def conversation(world: World, rng: random.Random) -> str:
    """Questions about people with their answers; held-out questions are never asked."""
    lines = []
    for _ in range(rng.randint(2, 4)):
        person = _person(world, rng)
        kind = rng.choice(list(QUESTION_FORMS))
        if is_held_out("fact", person.name, kind):
            lines.append(rng.choice(fact_sentences(person, rng)))
        else:
            question = rng.choice(QUESTION_FORMS[kind]).format(name=person.name)
            lines.append(f"{question} {answer_sentence(person, kind)}")
    return "\n".join(lines)


def town_letter(world: World, rng: random.Random) -> str:
    """Tell about a town: its landscape, weather, sights and who lives there."""
    town = rng.choice(list(TOWNS))
    land = LANDSCAPES[TOWNS[town]]
    people = [p for p in world.people.values() if p.town == town]
    lines = [
        f"{town} is a town by the {TOWNS[town]}."
        if TOWNS[town] in ("river", "coast")
        else f"{town} is a {TOWNS[town]} town.",
        f"It is often {land['weather']} there, and people eat {land['food']}.",
        f"In {town} you can see {land['sight']}.",
    ]
    lines += [
        rng.choice([f"{p.name}, a {p.job}, lives in {town}.", f"In {town} lives {p.name} with a {p.animal}."])
        for p in rng.sample(people, min(len(people), rng.randint(1, 4)))
    ]
    return " ".join(lines)
