"""Suites run one task after the other; what is finished is kept, and not run again."""

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api import task as harness_task
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from ..utils.errors import UserError
from ..utils.files import write_json
from .baselines import find_chance_level
from .lm import NO_SCORE, EngineLM, Notes
from .progress import SuiteProgress
from .rows import make_rows
from .suites import CHAT_SUITES, choose_rows, choose_shots, name_settings
from .task_data import MissingDataError
from .task_files import LoadedTask, load_task
from .tasks.scorers import is_direct


Say = Callable[[str], None]


@dataclass
class Plan:
    """What a run asks: its rows, and the tasks whose data were read.

    Attributes:
        suite: name of the suite.
        chat: whether the chat template is used.
        limit: items of each task; None for all.
        rows: of the table, each with the names of its tasks.
        tasks: by name and number of examples, in the order in which they are run.
        skipped: rows that are left out because their data are missing, with the reason.
        notes: settings that a task could not take.
    """

    suite: str
    chat: bool
    limit: int | None
    rows: dict[str, tuple[str, ...]]
    tasks: dict[tuple[str, int], LoadedTask]
    skipped: dict[str, str]
    notes: list[str]


def plan_suite(
    suite: str,
    data_root: Path,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    shots: Sequence[int] | None = None,
    chat: bool | None = None,
    skip_missing: bool = False,
) -> Plan:
    """Choose the tasks of a run and read all their data, so that what is missing is told before anything is computed.

    Args:
        suite: base, instruct, reason or demo.
        data_root: folder of the data.
        names: rows or tasks, in place of the suite's.
        limit: items of each task.
        shots: numbers of examples before each item, a row for each; as in the guides if not set.
        chat: whether to ask in the chat template; as the suite does if not set.
        skip_missing: leave rows out whose data are missing.

    Raises:
        UserError: an unknown name, or data that are missing or damaged.
    """
    rows, tasks, skipped = choose_rows(suite, names), dict[tuple[str, int], LoadedTask](), dict[str, str]()
    for row, parts in rows.items():
        try:
            found = {
                (part, count): load_task(part, data_root, count, limit)
                for part in parts
                for count in choose_shots(suite, part, shots)
            }
        except MissingDataError as error:
            if not skip_missing:
                raise
            skipped[row] = str(error)
            continue
        tasks |= found
    if not tasks:
        raise UserError(f"no task is left: {'; '.join(skipped.values())}")
    notes = _note_other_shots(tasks, shots or ())
    chat = suite in CHAT_SUITES if chat is None else chat
    return Plan(suite, chat, limit, {r: p for r, p in rows.items() if r not in skipped}, tasks, skipped, notes)


def _note_other_shots(tasks: Iterable[tuple[str, int]], wanted: Sequence[int]) -> list[str]:
    """Say of each task after which of the wanted numbers of examples it was not asked, because it takes none."""
    given: dict[str, set[int]] = {}
    for name, count in tasks:
        given.setdefault(name, set()).add(count)
    notes = []
    for name, counts in given.items():
        if others := sorted(set(wanted) - counts):
            asked, left = (", ".join(map(str, sorted(numbers))) for numbers in (counts, others))
            notes.append(f"{name} takes no examples: it was asked with {asked}, not with {left}")
    return notes


def make_content(plan: Plan, parts: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Make the rows of a table of what the tasks gave, with what was left out."""
    skipped = [{"row": row, "why": why} for row, why in plan.skipped.items()]
    empty = [
        f"{task}, {shots}-shot, was left out: each of its items has a choice that is longer than the model takes"
        for (task, shots), part in parts.items()
        if not part["items"]
    ]
    return {"rows": make_rows(plan.rows, parts), "skipped": skipped, "notes": [*plan.notes, *empty]}


def run_plan(
    lm: Any, plan: Plan, facts: dict[str, Any], folder: Path, say: Say
) -> dict[tuple[str, int], dict[str, Any]]:
    """Run the tasks of a plan, with one bar for the time that all of them take; what an earlier run finished is read.

    Args:
        lm: an `EngineLM` or a `CountingHFLM`.
        plan: what to ask.
        facts: by which a former run is known to be the same.
        folder: for what each task gave, and of what former runs left.
        say: told what is being done.
    """
    settings = name_settings(plan.suite, plan.limit, plan.chat)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    left: list[tuple[LoadedTask, bool, dict[str, Any], Path]] = []
    for (name, count), task in plan.tasks.items():
        chat, path = is_chat(plan, task), folder / "tasks" / f"{plan.suite}-{name}-{count}shot{settings}.json"
        key = {**facts, "task": task.name, "task_hash": task.task_hash, "shots": task.shots, "chat": chat}
        if getattr(lm, "is_int4", False):
            key["wanted_batch_size"] = lm.batch_size
        if known := read_kept(path, key):
            say(f"{name}, {count}-shot: taken from {path}")
            found[name, count] = known
        else:
            left.append((task, chat, key, path))
    progress = SuiteProgress([task for task, *_ in left], lm.max_length)
    lm.report = progress.report
    try:
        for task, chat, key, path in left:
            progress.begin_task(task)
            found[task.name, task.shots] = {**key, **run_task(lm, task, chat)}
            write_json(path, found[task.name, task.shots])
    except KeyboardInterrupt:
        say(f"Interrupted: {len(found)} of {len(plan.tasks)} tasks are finished and kept; the same command goes on.")
        raise
    finally:
        lm.report = None
        progress.close()
    return {place: found[place] for place in plan.tasks}


def is_chat(plan: Plan, task: LoadedTask) -> bool:
    """Tell whether a task is asked in the chat template."""
    return plan.chat or bool(task.metadata.get("chat"))


def is_generated(task: LoadedTask) -> bool:
    """Tell whether the model writes the answers to a task, in place of scoring choices."""
    return task.config["output_type"] == "generate_until"


def hash_template(model: str, template: str | None, plan: Plan) -> str | None:
    """Hash the chat template; None where none is used.

    Raises:
        UserError: there is none, and the plan needs one.
    """
    if not any(is_chat(plan, task) for task in plan.tasks.values()):
        return None
    if not template:
        raise UserError(
            f"{model} has no chat template, which the {plan.suite} suite asks in; take --suite base or --no-chat, or train "
            "it to chat first"
        )
    return hashlib.sha256(template.encode()).hexdigest()[:16]


def read_kept(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Read what was kept under these facts; None if there is nothing, or what was kept is of other facts."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # there is none, or it was not written whole
    return known if all(known.get(name) == value for name, value in key.items()) else None


def run_task(lm: LM, task: LoadedTask, chat: bool) -> dict[str, Any]:
    """Ask the items of a task by the harness; return what each scored, with the hash of its prompt.

    An item one of whose choices has no score is left out and counted: right or wrong, it would be so by its length alone.
    """
    own = lm if isinstance(lm, EngineLM) else None
    counts: Notes = getattr(lm, "notes", None) or Notes()
    before, start = counts.as_dict(), time.perf_counter()
    if own:
        own.ends_turn, own.has_ended = bool(task.metadata.get("chat")), []
    chance_level = find_chance_level(task)  # which judges answers to every row: one that can't be judged is told first
    samples = evaluate_task(lm, task, chat)
    ended = own.has_ended if own else []
    prompts = "".join(sample["prompt_hash"] for sample in samples)
    items = [
        _make_item(task, row, sample, chance, ended[number] if ended else None)
        for number, (row, sample, chance) in enumerate(zip(task.rows, samples, chance_level.items, strict=True))
        if is_generated(task) or NO_SCORE not in (response[0] for response in sample["resps"])
    ]
    notes = {name: value - before[name] for name, value in counts.as_dict().items()}
    return {
        "metric": task.metadata["score"],
        "form": task.metadata["form"],
        "prompt": task.metadata["prompt"],
        "metadata": {name: task.metadata[name] for name in ("also", "also_means", "direct") if name in task.metadata},
        "prompt_hash": hashlib.sha256(prompts.encode()).hexdigest()[:16],
        "notes": {**notes, "num_left_out": len(samples) - len(items)},
        "batch_size": own.used_batch_size if own else None,
        "data_notes": task.notes,
        "chance_scores": chance_level.scores,
        "seconds": round(time.perf_counter() - start, 1),
        "items": items,
    }


def evaluate_task(lm: LM, task: LoadedTask, chat: bool) -> list[dict[str, Any]]:
    """Let the harness ask a task; return its samples in the order of the rows.

    This is `lm_eval.simple_evaluate` without the list of what is installed, which takes a second a task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    harness_task.tqdm = partial(
        tqdm, disable=True
    )  # a bar for the making of prompts would stand amid that of the suite
    random.seed(0)
    config = {**task.config, "num_fewshot": 0}
    tasks = TaskManager(include_defaults=False).load([config])  # reading all of the harness's own takes seconds
    with np.errstate(invalid="ignore"):  # the harness normalizes choices, also where none of them has a score
        answer = lm_eval.evaluate(
            lm=lm, task_dict=tasks, bootstrap_iters=0, log_samples=True, apply_chat_template=chat, verbosity="ERROR"
        )
    return sorted(answer["samples"][task.name], key=lambda sample: sample["doc_id"])


def _make_item(
    task: LoadedTask, row: dict[str, Any], sample: dict[str, Any], chances: dict[str, Any], ended: bool | None
) -> dict[str, Any]:
    """Make what is kept of an item."""
    metric, group = task.metadata["score"], task.metadata.get("group")
    item = {
        "id": row["id"],
        "score": float(sample[metric]),
        "chance": float(chances[metric]),
        "prompt_hash": sample["prompt_hash"],
    }
    if group:
        item["group"] = row[group]
    if is_generated(task):
        item["answer"] = sample["resps"][0][0]
    else:
        item["loglikelihoods"] = [round(float(response[0][0]), 6) for response in sample["resps"]]
    also = [*task.metadata.get("also", {}).values(), *task.metadata.get("also_means", {}).values()]
    if also:
        item["scores"] = {name: sample[name] for name in also}
        item["chances"] = {name: chances.get(name, 0.0) for name in also}
    if ended is not None:
        item["ended"] = ended
        if task.metadata.get("direct"):
            item["direct"] = float(is_direct(item["answer"], ended))
    return item
