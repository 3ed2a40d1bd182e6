"""Pairs of answers, one better: right over wrong, a sentence over a word, polite over rude, to the point over rambling. Held-out ones never occur."""

import random
from typing import Any

from .chats import IDENTITY, ask_fact, ask_sum, shorten
from .questions import held_out_questions
from .random_source import random_source
from .stories import write_story
from .world import World


_RUDE = ("Why do you ask me that? Go away.", "I do not care.", "Find it out yourself.", "What a stupid question.")
_NOT_DOGE = ("I am a person.", "I have no name.", "Nobody.", "I will not tell you.")


def write_preference(world: World, rng: random.Random) -> dict[str, Any]:
    """A row of `prompt`, `chosen` and `rejected`, as messages."""
    if rng.random() < 0.1:
        return _pair("Who are you?", IDENTITY, rng.choice(_NOT_DOGE))
    question, chosen, brief = rng.choice((ask_fact, ask_fact, ask_sum))(world, rng)
    return _pair(question, chosen, write_rejected(world, rng, question, chosen, brief))


def held_out_preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of answers to `held_out_questions`, in the form of `write_preference`."""
    rng = random_source(seed, "held-out preferences")
    asked = held_out_questions(count, seed)
    pairs = []
    for q in asked:
        brief = q.short_answer if q.kind == "sum" else shorten(q.short_answer)
        pairs.append(_pair(q.question, q.answer, write_rejected(World.of(seed), rng, q.question, q.answer, brief)))
    return pairs


def write_rejected(world: World, rng: random.Random, question: str, chosen: str, brief: str) -> str:
    """A worse answer than `chosen`: wrong, in a word (`brief`), rude or rambling."""
    if rng.random() < 0.4:
        return brief
    return rng.choice((wrong, wrong, rude, rambling))(world, rng, question, chosen)


def _pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def wrong(world: World, rng: random.Random, question: str, chosen: str) -> str:
    """An answer of the same form that is not true."""
    if "+" in question:
        result = int(chosen.rsplit(" ", 1)[1])
        return (
            f"{chosen.rsplit(' ', 1)[0]} {result + rng.choice((-10, -2, -1, 1, 2, 10) if result > 9 else (1, 2, 10))}"
        )
    while True:  # somebody else's answer
        _, other, _ = ask_fact(world, rng)
        if other != chosen:
            return other


def rude(world: World, rng: random.Random, question: str, chosen: str) -> str:
    """No answer, and no manners."""
    return rng.choice(_RUDE)


def rambling(world: World, rng: random.Random, question: str, chosen: str) -> str:
    """Much that nobody asked for."""
    return " ".join(write_story(world, rng).replace("\n", " ").split(" ")[:40])
