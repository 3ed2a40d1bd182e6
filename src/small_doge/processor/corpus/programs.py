"""Short Python programs with their output, which is what running them printed."""

import random

from .world import COLOURS, OBJECTS, World


def run_program(code: str) -> str:
    """Return what a program of ours prints. Not for programs from elsewhere."""
    printed: list[str] = []
    exec(code, {"print": lambda *values: printed.append(" ".join(map(str, values)))})
    return "\n".join(printed)


def write_program(world: World, rng: random.Random) -> str:
    """Write a program, then its output."""
    code = rng.choice((loop, function, condition, listing, mapping, text))(world, rng)
    return f"# Python\n{code}\n# Output\n{run_program(code)}"


def loop(world: World, rng: random.Random) -> str:
    """Write a program that sums or prints a range."""
    start, count = rng.randint(0, 5), rng.randint(2, 5)
    if rng.random() < 0.5:
        return f"total = 0\nfor i in range({start}, {start + count}):\n    total = total + i\nprint(total)"
    return f"for i in range({count}):\n    print(i * {rng.randint(1, 9)})"


def function(world: World, rng: random.Random) -> str:
    """Write a function of one or two numbers."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    name, body = rng.choice(
        [("add", "a + b"), ("larger", "max(a, b)"), ("smaller", "min(a, b)"), ("twice_first", "a * 2 + b")]
    )
    return f"def {name}(a, b):\n    return {body}\n\nprint({name}({a}, {b}))"


def condition(world: World, rng: random.Random) -> str:
    """Write a choice between two texts."""
    value, limit = rng.randint(0, 20), rng.randint(0, 20)
    return f"x = {value}\nif x > {limit}:\n    print('large')\nelse:\n    print('small')"


def listing(world: World, rng: random.Random) -> str:
    """Write a program of operations on a list."""
    names = rng.sample(list(world.people), rng.randint(2, 4))
    last = rng.choice(["print(len(names))", "print(names[0])", "print(sorted(names)[0])", "print(names[-1])"])
    return f"names = {names}\n{last}"


def mapping(world: World, rng: random.Random) -> str:
    """Write facts of the world in a dictionary."""
    people = rng.sample(list(world.people.values()), 2)
    table = {p.name: p.town for p in people}
    return f"town = {table}\nprint(town['{people[0].name}'])"


def text(world: World, rng: random.Random) -> str:
    """Operations on a word."""
    word = rng.choice([*OBJECTS, *COLOURS])
    last = rng.choice(["print(word.upper())", "print(len(word))", "print(word[0])", "print(word + 's')"])
    return f"word = '{word}'\n{last}"
