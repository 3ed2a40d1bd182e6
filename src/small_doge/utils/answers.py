"""Answers that can be verified: numbers and formulas in text, read and compared by math-verify."""

import threading
from functools import lru_cache
from typing import Any


# Seconds that reading or comparing one answer may take; a power tower would never end.
TIMEOUT = 3
REMEMBERED = 4096


def split_thought(text: str, tags: tuple[str, str]) -> tuple[str | None, str]:
    """The thought between `tags`, None if there is none, and the answer after it.

    A thought that was opened and not closed has no answer after it: the answer is then empty.
    """
    start, end = tags
    if end in text:
        thought, _, answer = text.rpartition(end)
        return thought.partition(start)[2] if start in thought else thought, answer
    if start in text:
        return text.partition(start)[2], ""
    return None, text


@lru_cache(REMEMBERED)
def parse_answer(text: str) -> tuple[Any, ...]:
    """The value that a text states, as math-verify reads it; empty if it states none.

    Plain numbers count ("12", "It is 12.", "5 + 7 = 12"), and so do fractions, LaTeX and boxed answers.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse  # sympy takes a second to import

    readers = [LatexExtractionConfig(), ExprExtractionConfig()]
    return tuple(parse(text.strip(), readers, parsing_timeout=_timeout()))


def is_right(answer: str, reference: str) -> bool:
    """Whether an answer states the value of the reference answer.

    Raises:
        ValueError: the reference states no value, so nothing can be verified against it.
    """
    from math_verify import verify

    gold = parse_answer(reference)
    if not gold:
        raise ValueError(f"the reference answer {reference!r} states no value that could be verified")
    found = parse_answer(answer)
    return bool(found) and bool(verify(list(gold), list(found), timeout_seconds=_timeout()))


def _timeout() -> int | None:
    """Timeouts are signals, which only the main thread can take."""
    return TIMEOUT if threading.current_thread() is threading.main_thread() else None
