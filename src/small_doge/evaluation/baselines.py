"""Chance levels: what a model scores on a task without solving any of its items.

Of choices, it guesses one. Where an answer is generated freely, guessing has nothing to choose from, but answers that are
given blindly are right now and then: the last number of a word problem, or the answer that other items often have. They are
judged by the task's own function, and the better of the two is the chance level.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import bbh
from .task_files import LoadedTask, write_question


Row = dict[str, Any]
GUESS = "a guess among the choices"
LAST_NUMBER = "the last number of the question"
COMMON_ANSWER = "the answer that is most common among the other items"
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class ChanceLevel:
    """What guessing reaches on a task.

    Attributes:
        items: of each item, its score by metric.
        scores: of each kind of answer that was tried, its share of right ones, over the items that it was tried on.
    """

    items: list[dict[str, Any]]
    scores: dict[str, float]


def find_chance_level(task: LoadedTask) -> ChanceLevel:
    """Find what a model that solves nothing would score on the items of a task."""
    constant = task.metadata.get("baseline")
    if constant is not None:
        found = [task.config["process_results"](row, [constant]) for row in task.rows]
        share = sum(one[task.metadata["score"]] for one in found) / len(found)
        return ChanceLevel(found, {f'the answer "{constant}"': share})
    values = [_guess(task, row) for row in task.rows]
    guessed = [value for value in values if value is not None]
    scores = {GUESS: sum(guessed) / len(guessed)} if guessed else {}
    places = [place for place, value in enumerate(values) if value is None]
    if places:
        answered, blind = _answer_blindly(task, places)
        values = [answered.get(place, value) for place, value in enumerate(values)]
        scores |= blind
    return ChanceLevel([dict.fromkeys(task.metrics, value) for value in values], scores)


def _guess(task: LoadedTask, row: Row) -> float | None:
    """Return how likely a guess among the choices of an item is right; None where there are none."""
    if task.name == "bbh":
        return bbh.find_chance(row)
    return 1 / len(row["choices"]) if row.get("choices") else None


def _answer_blindly(task: LoadedTask, places: Sequence[int]) -> tuple[dict[int, float], dict[str, float]]:
    """Score blind answers to the items at some places; return the better kind's scores by place, and each kind's share.

    Where a task has groups, the better kind is chosen for each.
    """
    kinds: dict[str, Callable[[LoadedTask, list[Row]], list[str]]] = {
        LAST_NUMBER: _find_last_numbers,
        COMMON_ANSWER: _find_common_answers,
    }
    groups: dict[str, list[int]] = {}
    for place in places:
        groups.setdefault(task.rows[place].get(task.metadata.get("group"), ""), []).append(place)
    best: dict[int, float] = {}
    totals = dict.fromkeys(kinds, 0.0)
    for group in groups.values():
        rows = [task.rows[place] for place in group]
        found = {kind: _judge(task, rows, answer(task, rows)) for kind, answer in kinds.items()}
        best |= zip(group, max(found.values(), key=sum), strict=True)
        for kind, values in found.items():
            totals[kind] += sum(values)
    return best, {kind: total / len(places) for kind, total in totals.items()}


def _judge(task: LoadedTask, rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    judge, metric = task.config["process_results"], task.metadata["score"]
    return [float(judge(row, [answer])[metric]) for row, answer in zip(rows, answers, strict=True)]


def _find_last_numbers(task: LoadedTask, rows: list[Row]) -> list[str]:
    return [(NUMBER.findall(write_question(task.config, row)) or [""])[-1] for row in rows]


def _find_common_answers(task: LoadedTask, rows: list[Row]) -> list[str]:
    """Return for each item the right answer that most others have: its own does not count, so that few items say little."""
    answers = [str(row[task.config["doc_to_target"]]) for row in rows]
    counts = Counter(answers)
    ranked = counts.most_common()
    common = []
    for own in answers:
        best = max((count - (answer == own), -place, answer) for place, (answer, count) in enumerate(ranked[:2]))
        common.append(best[2] if best[0] > 0 else "")
    return common
