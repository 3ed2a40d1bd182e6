"""Sums with two and three numbers, worked step by step, whose results can be verified. Held-out ones never occur."""

import random

from .arithmetic import draw_pair
from .world import OBJECTS, World


def write_problem(world: World, rng: random.Random) -> dict[str, str]:
    """A row of `question`, `rationale` (the steps) and `final` (the number as text)."""
    return rng.choice((add_two, add_two, add_three, take_away, story))(world, rng)


def add_two(world: World, rng: random.Random) -> dict[str, str]:
    """Two numbers, ones and tens apart."""
    a, b = draw_pair(rng, 99)
    return {"question": f"What is {a} + {b}?", "rationale": work_out(a, b), "final": str(a + b)}


def work_out(a: int, b: int) -> str:
    """The steps of a sum."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}"
    ones, tens = a % 10 + b % 10, 10 * (a // 10 + b // 10)
    return f"ones: {a % 10} + {b % 10} = {ones}. tens: {a - a % 10} + {b - b % 10} = {tens}. {tens} + {ones} = {a + b}"


def add_three(world: World, rng: random.Random) -> dict[str, str]:
    """Three small numbers, one after the other."""
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    steps = f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}"
    return {"question": f"What is {a} + {b} + {c}?", "rationale": steps, "final": str(a + b + c)}


def take_away(world: World, rng: random.Random) -> dict[str, str]:
    """A difference, by the sum that it comes from."""
    a, b = draw_pair(rng, 20)
    steps = f"{a} + {b} = {a + b}, so {a + b} - {b} = {a}"
    return {"question": f"What is {a + b} - {b}?", "rationale": steps, "final": str(a)}


def story(world: World, rng: random.Random) -> dict[str, str]:
    """A sum told as a story."""
    a, b = draw_pair(rng, 20)
    name, other = rng.sample(list(world.people), 2)
    thing = rng.choice(OBJECTS)
    plural = f"{thing}es" if thing.endswith("x") else f"{thing}s"
    question = f"{name} has {a} {plural}. {other} gives {name} {b} more. How many {plural} does {name} have now?"
    return {"question": question, "rationale": work_out(a, b), "final": str(a + b)}
