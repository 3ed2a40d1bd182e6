"""How generated answers are scored, for the task files; the harness finds these functions by their names."""

import re
import string
from typing import Any

from small_doge.processor.data_config import DEFAULT_THINKING_TAGS
from small_doge.utils.answers import is_right, split_thought


def match_alias(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the first line of an answer is one of the names of the right one."""
    said = _strip(results[0])
    return {"exact_match": float(any(said == _strip(name) for name in [doc["answer"], *doc["aliases"]]))}


def match_exactly(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the first line of an answer is the target, but for white space around it."""
    return {"exact_match": float(_first_line(results[0]) == doc["target"].strip())}


def verify_value(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether an answer, after any thought, states the value of the right one."""
    _, said = split_thought(results[0], DEFAULT_THINKING_TAGS)
    return {"exact_match": float(is_right(said, doc["final"]))}


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()


def _strip(text: str) -> str:
    """Return the first line without case, punctuation, articles and doubled spaces."""
    bare = _first_line(text).lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
