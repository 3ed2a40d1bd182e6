"""BIG-Bench Hard: its 27 tasks, the forms of their answers, and the files that they come in."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from .task_data import check_row, list_folders, read_rows


LETTERED = 0  # the choices stand in each question, as (A), (B) and so on
FREE = None  # nothing to choose from
# What each task has to choose from: so many words, lettered choices, or nothing.
TASKS: dict[str, int | None] = {
    "boolean_expressions": 2,
    "causal_judgement": 2,
    "date_understanding": LETTERED,
    "disambiguation_qa": LETTERED,
    "dyck_languages": FREE,
    "formal_fallacies": 2,
    "geometric_shapes": LETTERED,
    "hyperbaton": LETTERED,
    "logical_deduction_five_objects": LETTERED,
    "logical_deduction_seven_objects": LETTERED,
    "logical_deduction_three_objects": LETTERED,
    "movie_recommendation": LETTERED,
    "multistep_arithmetic_two": FREE,
    "navigate": 2,
    "object_counting": FREE,
    "penguins_in_a_table": LETTERED,
    "reasoning_about_colored_objects": LETTERED,
    "ruin_names": LETTERED,
    "salient_translation_error_detection": LETTERED,
    "snarks": LETTERED,
    "sports_understanding": 2,
    "temporal_sequences": LETTERED,
    "tracking_shuffled_objects_five_objects": LETTERED,
    "tracking_shuffled_objects_seven_objects": LETTERED,
    "tracking_shuffled_objects_three_objects": LETTERED,
    "web_of_lies": 2,
    "word_sorting": FREE,
}
OTHER_NAMES = {"causal_judgment": "causal_judgement"}  # as some tables spell it
REPOSITORY = "BIG-Bench-Hard"  # a copy of it in the data root is read as it is
HOW_TO_GET = (
    f"git clone https://github.com/suzgunmirac/{REPOSITORY} in the data root brings all 27 tasks with their examples; "
    "or write JSON lines with task, input, target to bbh.jsonl"
)


def find_chance(row: dict[str, Any]) -> float | None:
    """Return how likely a guess among the choices of a question is right; None where there are none."""
    kind = TASKS[row["task"]]
    if kind is FREE:
        return None
    letters = re.findall(r"^\([A-Z]\)", row["input"], re.MULTILINE)
    return 1 / max(2, kind or len(letters))  # a question whose list of choices is broken has two at least


def read_questions(data_root: Path, metadata: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the questions of all tasks whose files are there, in the order of `TASKS`, and say what was left out.

    Raises:
        UserError: a row's task is unknown, or a file is damaged.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for folder in list_folders(data_root):
        for path in sorted(folder.glob("bbh*.jsonl*")):
            if "cot_prompts" not in path.name:
                notes += _add(rows, read_rows(path, "bbh", metadata), path)
    for path in _find_files(data_root, "bbh", "json"):
        more = _read_published(path)
        for number, row in enumerate(more, 1):
            check_row(row, "bbh", metadata["columns"], f"{path}, example {number}")
        notes += _add(rows, more, path)
    return [row for task in TASKS for row in rows.get(task, [])], notes


def list_missing(rows: Iterable[dict[str, Any]]) -> list[str]:
    """List the tasks without rows."""
    there = {row["task"] for row in rows}
    return [task for task in TASKS if task not in there]


def read_examples(data_root: Path) -> dict[str, list[str]]:
    """Read the examples of each task as texts: their chains of thought are left out, and the answers kept."""
    found: dict[str, list[str]] = {}
    for folder in list_folders(data_root):
        for path in sorted(folder.glob("bbh*cot_prompts.jsonl*")):
            for number, row in enumerate(read_rows(path), 1):
                check_row(row, "bbh", ["task", "cot_prompt"], f"{path}, row {number}")
                found[row["task"]] = drop_thoughts(row["cot_prompt"])
    for path in _find_files(data_root, "cot-prompts", "txt"):
        text = path.read_text(encoding="utf-8").split("-----\n", 1)[-1]  # after the canary
        found.setdefault(path.stem, drop_thoughts(text))
    return found


def drop_thoughts(prompt: str) -> list[str]:
    """Return the examples of a chain-of-thought prompt with their answers alone; the first has the task's description."""
    description, *examples = re.split(r"\n\n(?=Q: )", prompt.strip())
    parts = []
    for example in examples:
        question = re.split(r"\nA: ?", example)[0]
        answer = re.findall(r"[Ss]o the answer is (.*?)\.?\s*$", example)
        if answer:
            parts.append(f"{question}\nA: {answer[-1]}\n\n")
    return [f"{description}\n\n{parts[0]}", *parts[1:]] if parts else []


def _find_files(data_root: Path, kind: str, ending: str) -> list[Path]:
    """Find the files of the published repository, in a copy of it or beside the other data."""
    folders = (folder / REPOSITORY / kind for folder in list_folders(data_root))
    plain = (folder / kind for folder in list_folders(data_root))
    return [path for folder in (*folders, *plain) for path in sorted(folder.glob(f"*.{ending}")) if folder.is_dir()]


def _read_published(path: Path) -> list[dict[str, Any]]:
    """Read a file of the published repository: one object with a list of examples.

    Raises:
        UserError: it has another form.
    """
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
        return [{"task": path.stem, "input": e["input"], "target": e["target"]} for e in examples]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} isn't a file of BIG-Bench Hard, which has examples with input and target: {error}"
        ) from error


def _add(rows: dict[str, list[dict[str, Any]]], more: Iterable[dict[str, Any]], path: Path) -> list[str]:
    """Add the rows of a file; those of tasks that an earlier file had are left out, which is said.

    Raises:
        UserError: a task is unknown.
    """
    new: dict[str, list[dict[str, Any]]] = {}
    for row in more:
        task = OTHER_NAMES.get(row["task"], row["task"])
        if task not in TASKS:
            raise UserError(f"{path}: {row['task']!r} is none of the 27 tasks of BIG-Bench Hard: {', '.join(TASKS)}")
        new.setdefault(task, []).append({**row, "task": task})
    known = [task for task in new if task in rows]
    rows |= {task: found for task, found in new.items() if task not in rows}
    if not known:
        return []
    num_left = sum(len(new[task]) for task in known)
    return [f"{num_left:,} rows of {path} were left out, since an earlier file has their tasks: {', '.join(known)}"]
