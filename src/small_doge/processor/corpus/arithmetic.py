"""Worked arithmetic: sums, differences, products and little stories with numbers. Held-out pairs never occur."""

import random

from .random_source import is_held_out_sum
from .world import OBJECTS, World


# Numbers of these digits come often: their table is small enough for a model of this size to learn.
EASY_DIGITS = 5


def draw_pair(rng: random.Random, limit: int) -> tuple[int, int]:
    """Draw two numbers up to `limit` whose sum is not held out."""
    while True:
        a, b = rng.randint(0, limit), rng.randint(0, limit)
        if not is_held_out_sum(a, b):
            return a, b


def draw_easy_pair(rng: random.Random, tens: int, held_out: bool = False) -> tuple[int, int]:
    """Draw two numbers of `EASY_DIGITS` and up to so many tens, whose sum is not held out, or is."""
    while True:
        a, b = (10 * rng.randint(0, tens) + rng.randint(0, EASY_DIGITS) for _ in range(2))
        if is_held_out_sum(a, b) == held_out:
            return a, b


def work_out_sum(a: int, b: int) -> str:
    """Work out a sum, with ones and tens apart where it has tens."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}"
    ones, tens = a % 10 + b % 10, 10 * (a // 10 + b // 10)
    return f"ones: {a % 10} + {b % 10} = {ones}. tens: {a - a % 10} + {b - b % 10} = {tens}. {tens} + {ones} = {a + b}"


def work_out_difference(a: int, b: int) -> str:
    """Work out a difference without borrowing, with ones and tens apart where it has tens."""
    if a < 10:
        return f"{a} - {b} = {a - b}"
    ones, tens = a % 10 - b % 10, 10 * (a // 10 - b // 10)
    return f"ones: {a % 10} - {b % 10} = {ones}. tens: {a - a % 10} - {b - b % 10} = {tens}. {tens} + {ones} = {a - b}"


def write_arithmetic(world: World, rng: random.Random) -> str:
    """Write one document of a few exercises."""
    forms = (addition, addition, addition, subtraction, multiplication, word_problem)
    return "\n".join(rng.choice(forms)(world, rng) for _ in range(rng.randint(3, 5)))


def addition(world: World, rng: random.Random) -> str:
    """Write a sum, worked digit by digit or told at once."""
    a, b = draw_easy_pair(rng, rng.choice((0, 5))) if rng.random() < 0.7 else draw_pair(rng, rng.choice((9, 99)))
    if rng.random() < 0.7:
        return f"What is {a} + {b}? {work_out_sum(a, b)}"
    return f"{a} + {b} = {a + b}"


def subtraction(world: World, rng: random.Random) -> str:
    """Write a difference, worked digit by digit or told at once."""
    b, rest = draw_easy_pair(rng, rng.choice((0, 4)))
    a = b + rest
    if rng.random() < 0.7 and b % 10 + rest % 10 < 10:
        return f"What is {a} - {b}? {work_out_difference(a, b)}"
    return f"{a} - {b} = {rest}"


def multiplication(world: World, rng: random.Random) -> str:
    """Write a product, with the sum it stands for when it is short."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if 2 <= b <= 4 and a < 10:
        return f"{a} * {b} = {' + '.join([str(a)] * b)} = {a * b}"
    return f"{a} * {b} = {a * b}"


def word_problem(world: World, rng: random.Random) -> str:
    """Write a story with two numbers."""
    a, b = draw_pair(rng, 20)
    name, other = rng.sample(list(world.people), 2)
    thing = rng.choice(OBJECTS)
    plural = f"{thing}es" if thing.endswith("x") else f"{thing}s"
    start = f"{name} has {a} {plural} and {other} gives {world.people[name].pronoun_object} {b} more."
    return f"{start} Now {name} has {a} + {b} = {a + b} {plural}."
