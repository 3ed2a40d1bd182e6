"""Suites of tasks with the settings of the guides: which rows a table has, and how each is asked."""

import hashlib
import re
from collections.abc import Sequence

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .task_files import list_tasks, read_task


# Rows of the guides' tables, and of the demo's report: the tasks that each averages.
ROWS = {
    "IFEval": ("ifeval",),
    "MMLU": ("mmlu",),
    "TriviaQA": ("triviaqa",),
    "BBH": ("bbh",),
    "ARC": ("arc_easy", "arc_challenge"),
    "PIQA": ("piqa",),
    "HellaSwag": ("hellaswag",),
    "OBQA": ("openbookqa",),
    "Winogrande": ("winogrande",),
    "GSM8K": ("gsm8k",),
    "SVAMP": ("svamp",),
    "MATH": ("math",),
    "Questions": ("demo_questions",),
    "Problems": ("demo_problems",),
    "Problems drawn": ("demo_problems_drawn",),
    "Preferences": ("demo_preferences",),
}
SUITES = {
    "base": ("MMLU", "TriviaQA", "ARC", "PIQA", "HellaSwag", "OBQA", "Winogrande"),
    "instruct": ("IFEval", "MMLU", "BBH", "ARC", "PIQA", "HellaSwag"),
    "reason": ("GSM8K", "SVAMP", "MATH"),
    "demo": ("Questions", "Problems", "Problems drawn", "Preferences"),
}
CHAT_SUITES = ("instruct", "reason", "demo")


def name_settings(suite: str, limit: int | None, chat: bool | None) -> str:
    """Name, for files, what differs from how a suite asks: `-limit10`, `-plain`, `-chat`, or nothing."""
    is_usual = chat is None or chat == (suite in CHAT_SUITES)
    return (f"-limit{limit}" if limit else "") + ("" if is_usual else "-chat" if chat else "-plain")


def name_folder(model: str) -> str:
    """Name a folder after a model; a short hash tells models apart that differ only in what the name replaces."""
    clean = re.sub(r"[^\w.-]+", "__", model.strip("/"))
    return f"{clean}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def choose_rows(suite: str, names: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Choose the rows of a table: those of a suite, or those that are named, by row or by task.

    Raises:
        UserError: a name is unknown; the message has the nearest one.
    """
    if suite not in SUITES:
        raise UserError(unknown_name_message("suite", suite, SUITES))
    if not names:
        return {row: ROWS[row] for row in SUITES[suite]}
    by_name = {row.lower(): row for row in ROWS} | {parts[0]: row for row, parts in ROWS.items() if len(parts) == 1}
    chosen = {}
    for name in names:
        if name.lower() in by_name:
            row = by_name[name.lower()]
            chosen[row] = ROWS[row]
        elif name in list_tasks():
            chosen[name] = (name,)
        else:
            raise UserError(unknown_name_message("task", name, {*by_name, *list_tasks()}))
    return chosen


def choose_shots(suite: str, task: str, wanted: Sequence[int] | None) -> list[int]:
    """Choose the numbers of examples that a task is asked after: those that are wanted, or those of the guides.

    With a chat template, the guides give examples to BBH alone. Some tasks take no more than `max_shots`.
    """
    metadata = read_task(task)["metadata"]
    if not wanted:
        return [0 if suite in CHAT_SUITES and task != "bbh" else metadata["shots"]]
    most = metadata.get("max_shots")
    return sorted({count if most is None else min(count, most) for count in wanted})


def parse_shots(text: str | None) -> list[int] | None:
    """Read numbers of examples, separated by commas.

    Raises:
        UserError: one is no number from 0 on.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--shots {text}: give numbers of examples from 0 on, separated by commas, such as 0,5")
    return sorted({int(part) for part in parts})
