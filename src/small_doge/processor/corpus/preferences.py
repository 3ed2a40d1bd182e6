"""Pairs of answers, one better: right over wrong, a sentence over a word, polite over rude, to the point over rambling. Held-out ones never occur."""

import random
from typing import Any

from .chats import IDENTITY, ask_fact, tell_result
from .problems import held_out_problems, write_problem
from .questions import held_out_questions
from .random_source import random_source
from .stories import write_story
from .world import World


_RUDE = ("Why do you ask me that? Go away.", "I do not care.", "Find it out yourself.", "What a stupid question.")
_NOT_DOGE = ("I am a person.", "I have no name.", "Nobody.", "I will not tell you.")


def write_preference(world: World, rng: random.Random) -> dict[str, Any]:
    """Write a row of `prompt`, `chosen` and `rejected`, as messages."""
    if rng.random() < 0.1:
        return _pair("Who are you?", IDENTITY, rng.choice(_NOT_DOGE))
    if rng.random() < 0.5:
        return _compare_results(world, rng, write_problem(world, rng))
    return _compare_facts(world, rng, *ask_fact(world, rng))


def held_out_preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Yield pairs of answers to what is held out, facts and problems by turns, in the form of `write_preference`."""
    world, rng = World.of(seed), random_source(seed, "held-out preferences")
    facts = [q for q in held_out_questions(2 * count, seed) if q.kind != "sum"]
    problems = held_out_problems(count, seed)
    return [
        _compare_results(world, rng, problems[i])
        if i % 2
        else _compare_facts(world, rng, facts[i].question, facts[i].answer)
        for i in range(count)
    ]


def _compare_facts(world: World, rng: random.Random, question: str, chosen: str) -> dict[str, Any]:
    return _pair(question, chosen, rng.choice((wrong_fact, wrong_fact, rude, rambling))(world, rng, chosen))


def _compare_results(world: World, rng: random.Random, problem: dict[str, str]) -> dict[str, Any]:
    chosen = tell_result(problem)
    kinds = (brief, brief, wrong_result, rude, rambling)
    return _pair(problem["question"], chosen, rng.choice(kinds)(world, rng, chosen))


def _pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def wrong_fact(world: World, rng: random.Random, chosen: str) -> str:
    """Give somebody else's answer."""
    while True:
        _, other = ask_fact(world, rng)
        if other != chosen:
            return other


def wrong_result(world: World, rng: random.Random, chosen: str) -> str:
    """Return a number that is not the result."""
    result = int(chosen.strip(".").rsplit(" ", 1)[1])
    return tell_result({"final": str(result + rng.choice((-10, -2, -1, 1, 2, 10) if result > 9 else (1, 2, 10)))})


def brief(world: World, rng: random.Random, chosen: str) -> str:
    """Return the number alone."""
    return chosen.strip(".").rsplit(" ", 1)[1]


def rude(world: World, rng: random.Random, chosen: str) -> str:
    """Write no answer, and without manners."""
    return rng.choice(_RUDE)


def rambling(world: World, rng: random.Random, chosen: str) -> str:
    """Write much that nobody asked for."""
    return " ".join(write_story(world, rng).replace("\n", " ").split(" ")[:40])
