"""Worked arithmetic: sums, differences, products and little stories with numbers. Held-out pairs never occur."""

import random

from .random_source import is_held_out_sum
from .world import OBJECTS, World


def draw_pair(rng: random.Random, limit: int) -> tuple[int, int]:
    """Two numbers up to `limit` whose sum is not held out."""
    while True:
        a, b = rng.randint(0, limit), rng.randint(0, limit)
        if not is_held_out_sum(a, b):
            return a, b


def write_arithmetic(world: World, rng: random.Random) -> str:
    """One document of a few exercises."""
    forms = (addition, addition, subtraction, multiplication, word_problem)
    return "\n".join(rng.choice(forms)(world, rng) for _ in range(rng.randint(2, 4)))


def addition(world: World, rng: random.Random) -> str:
    """A sum, sometimes worked digit by digit."""
    a, b = draw_pair(rng, rng.choice((9, 20, 99)))
    text = f"{a} + {b} = {a + b}"
    if a > 9 and b > 9 and rng.random() < 0.6:
        ones, tens = a % 10 + b % 10, a // 10 + b // 10
        text = f"{a} + {b}: ones {a % 10} + {b % 10} = {ones}, tens {a // 10} + {b // 10} = {tens}, so {text}"
    return f"What is {a} + {b}? {text}" if rng.random() < 0.5 else text


def subtraction(world: World, rng: random.Random) -> str:
    """A difference and its check."""
    a, b = draw_pair(rng, rng.choice((9, 20, 50)))
    return f"{a + b} - {b} = {a}, because {a} + {b} = {a + b}"


def multiplication(world: World, rng: random.Random) -> str:
    """A product, with the sum it stands for when it is short."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if 2 <= b <= 4 and a < 10:
        return f"{a} * {b} = {' + '.join([str(a)] * b)} = {a * b}"
    return f"{a} * {b} = {a * b}"


def word_problem(world: World, rng: random.Random) -> str:
    """A story with two numbers."""
    a, b = draw_pair(rng, 20)
    name, other = rng.sample(list(world.people), 2)
    thing = rng.choice(OBJECTS)
    plural = f"{thing}es" if thing.endswith("x") else f"{thing}s"
    start = f"{name} has {a} {plural} and {other} gives {world.people[name].pronoun_object} {b} more."
    return f"{start} Now {name} has {a} + {b} = {a + b} {plural}."
