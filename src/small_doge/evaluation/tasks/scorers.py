"""How answers are scored, for the task files; the harness finds these functions by their names."""

from typing import Any

from small_doge.evaluation.tasks.matching import first_line, match_alias, match_exactly  # noqa: F401 (for task files)
from small_doge.processor.data_config import DEFAULT_THINKING_TAGS
from small_doge.utils.answers import find_fault, is_right, says, split_thought


def verify_value(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether an answer, after any thought, states the value of the right one, or its words where it has no value."""
    said, final = drop_thought(results[0]), doc["final"]
    return {"exact_match": float(says(said, final) if find_fault(final) else is_right(said, final))}


def follow_instructions(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Tell which instructions of IFEval an answer follows."""
    from small_doge.evaluation.ifeval import check_instructions

    return check_instructions(doc, results[0])


def average_lists(items: list[list[float]]) -> float:
    """Average what is in several lists."""
    values = [value for item in items for value in item]
    return sum(values) / len(values)


# The embedded questions.


def answer_question(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the words of the right answer, or its value, stand in the first line after any thought."""
    said = first_line(drop_thought(results[0]))
    if doc["kind"] == "sum":
        return {"exact_match": float(is_right(said, doc["short_answer"]))}
    return {"exact_match": float(says(said.split(" is ", 1)[-1], doc["short_answer"]))}


def solve_problem(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Tell whether the first line after any thought states the value of the right answer."""
    return {"exact_match": float(is_right(first_line(drop_thought(results[0])), doc["final"]))}


def prefer_chosen(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Tell whether the better answer is likelier, and by how many nats."""
    margin = results[0][0] - results[1][0]
    return {"acc": float(margin > 0), "margin": margin}


def is_direct(answer: str, has_ended: bool) -> bool:
    """Tell whether an answer, after any thought, is one line and ends its turn by itself."""
    said = drop_thought(answer)
    return has_ended and bool(said) and "\n" not in said


def drop_thought(answer: str) -> str:
    """Return an answer without the thought before it."""
    return split_thought(answer, DEFAULT_THINKING_TAGS)[1].strip()
