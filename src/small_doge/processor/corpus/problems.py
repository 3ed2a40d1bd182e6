"""Sums with two and three numbers and differences, worked step by step, whose results can be verified. Held-out ones never occur."""

import random

from .arithmetic import EASY_DIGITS, draw_easy_pair, work_out_difference, work_out_sum
from .random_source import is_held_out, random_source
from .world import OBJECTS, World


def write_problem(world: World, rng: random.Random, held_out: bool = False) -> dict[str, str]:
    """Write a row of `question`, `rationale` (the steps) and `final` (the number as text)."""
    return rng.choice((add_two, add_two, add_three, take_away, story))(world, rng, held_out)


def held_out_problems(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Yield different problems that no document works out, in the form of `write_problem`."""
    rng = random_source(seed, "held-out problems")
    problems: dict[str, dict[str, str]] = {}
    while len(problems) < count:
        problem = write_problem(World.of(seed), rng, held_out=True)
        problems.setdefault(problem["question"], problem)
    return list(problems.values())


def add_two(world: World, rng: random.Random, held_out: bool) -> dict[str, str]:
    """Add two numbers, ones and tens apart."""
    a, b = draw_easy_pair(rng, 5, held_out)
    return {"question": f"What is {a} + {b}?", "rationale": work_out_sum(a, b), "final": str(a + b)}


def add_three(world: World, rng: random.Random, held_out: bool) -> dict[str, str]:
    """Add three small numbers, one after the other."""
    while True:
        a, b, c = (rng.randint(1, EASY_DIGITS) for _ in range(3))
        if is_held_out("+", a, b, c) == held_out:
            break
    steps = f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}"
    return {"question": f"What is {a} + {b} + {c}?", "rationale": steps, "final": str(a + b + c)}


def take_away(world: World, rng: random.Random, held_out: bool) -> dict[str, str]:
    """Work out a difference without borrowing."""
    while True:
        b, rest = draw_easy_pair(rng, 4, held_out)
        if b % 10 + rest % 10 < 10:
            break
    a = b + rest
    return {"question": f"What is {a} - {b}?", "rationale": work_out_difference(a, b), "final": str(rest)}


def story(world: World, rng: random.Random, held_out: bool) -> dict[str, str]:
    """Tell a sum as a story."""
    a, b = draw_easy_pair(rng, 2, held_out)
    name, other = rng.sample(list(world.people), 2)
    thing = rng.choice(OBJECTS)
    plural = f"{thing}es" if thing.endswith("x") else f"{thing}s"
    question = f"{name} has {a} {plural}. {other} gives {name} {b} more. How many {plural} does {name} have now?"
    return {"question": question, "rationale": work_out_sum(a, b), "final": str(a + b)}
