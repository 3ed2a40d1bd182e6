"""The embedded corpus: a small consistent world told in plain English, generated, deterministic, of any size.

Document `i` of a kind is a pure function of (seed, kind, i), so any part can be made anywhere in any order.
Questions whose key `is_held_out` never stand in a document; `held_out_questions` asks them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from .arithmetic import write_arithmetic
from .chats import IDENTITY, write_chat
from .lessons import write_lesson
from .preferences import held_out_preferences, write_preference
from .problems import held_out_problems, write_problem
from .programs import write_program
from .questions import Question, held_out_questions
from .random_source import random_source
from .stories import write_story
from .world import World


# Seeds' proportions of web text, textbooks, Python and mathematics.
PROPORTIONS = {"world": 0.7, "textbook": 0.2, "python": 0.05, "arithmetic": 0.05}

_WRITERS: dict[str, Callable] = {
    "world": write_story,
    "textbook": write_lesson,
    "python": write_program,
    "arithmetic": write_arithmetic,
}


# Rows for the stages after pre-training.
_ROW_WRITERS: dict[str, Callable] = {
    "chat": lambda world, rng: {"messages": write_chat(world, rng)},
    "preference": write_preference,
    "problem": write_problem,
}
KINDS = (*PROPORTIONS, *_ROW_WRITERS)


def write_document(kind: str, index: int, seed: int = 0) -> str:
    """Write document number `index` of a kind: "world", "textbook", "python" or "arithmetic"."""
    return _WRITERS[kind](World.of(seed), random_source(seed, kind, index))


def iterate_documents(kind: str, count: int, seed: int = 0, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows `start` to `count` of a kind: with a `text`, or with what a stage after pre-training takes.

    "chat" gives `messages`, "preference" `prompt`, `chosen` and `rejected`, "problem" `question`, `rationale` and `final`.
    """
    for index in range(start, count):
        if kind in _ROW_WRITERS:
            yield _ROW_WRITERS[kind](World.of(seed), random_source(seed, kind, index))
        else:
            yield {"text": write_document(kind, index, seed)}


def iterate_mixture(count: int, seed: int = 0, start: int = 0) -> Iterator[str]:
    """Yield `count` texts in the proportions of `PROPORTIONS`, from number `start` of each kind on."""
    rng = random_source(seed, "mixture")
    kinds, weights = zip(*PROPORTIONS.items(), strict=True)
    for index in range(count):
        yield write_document(rng.choices(kinds, weights)[0], start + index, seed)


__all__ = [
    "IDENTITY",
    "KINDS",
    "PROPORTIONS",
    "Question",
    "World",
    "held_out_preferences",
    "held_out_problems",
    "held_out_questions",
    "iterate_documents",
    "iterate_mixture",
    "write_document",
]
