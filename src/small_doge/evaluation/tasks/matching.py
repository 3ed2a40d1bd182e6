"""How generated answers are matched with the right one, with nothing but Python, so that other toolkits can load this file."""

import re
import string
from typing import Any


def match_alias(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the first line of an answer is one of the names of the right one."""
    said = _strip(results[0])
    return {"exact_match": float(any(said == _strip(name) for name in [doc["answer"], *doc["aliases"]]))}


def match_exactly(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the first line of an answer is the target, but for white space around it."""
    return {"exact_match": float(first_line(results[0]) == doc["target"].strip())}


def first_line(text: str) -> str:
    """Return the first line of a text that is not empty."""
    return text.strip().split("\n")[0].strip()


def _strip(text: str) -> str:
    """Return the first line without case, punctuation, articles and doubled spaces."""
    bare = first_line(text).lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
