"""Suites of tasks with the settings of the guides, run one task after the other; what is finished is not run again."""

import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from ..inference import Engine
from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.suggest import unknown_name_message
from .lm import EngineLM
from .provenance import find_commit, hash_model
from .statistics import average, estimate
from .task_files import LoadedTask, list_tasks, load_task


# Rows of the guides' tables: the tasks that each averages.
ROWS = {
    "MMLU": ("mmlu",),
    "TriviaQA": ("triviaqa",),
    "BBH": ("bbh",),
    "ARC": ("arc_easy", "arc_challenge"),
    "PIQA": ("piqa",),
    "HellaSwag": ("hellaswag",),
    "OBQA": ("openbookqa",),
    "Winogrande": ("winogrande",),
    "GSM8K": ("gsm8k",),
}
SUITES = {
    "base": ("MMLU", "TriviaQA", "ARC", "PIQA", "HellaSwag", "OBQA", "Winogrande"),
    "instruct": ("MMLU", "BBH", "ARC", "PIQA", "HellaSwag"),
    "reason": ("GSM8K",),
}
CHAT_SUITES = ("instruct", "reason")
PACKAGES = ("small-doge", "lm-eval", "transformers", "torch", "onnxruntime", "datasets")


def choose_rows(suite: str, names: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Choose the rows of a table: those of a suite, or those that are named, by row or by task.

    Raises:
        UserError: a name is unknown; the message has the nearest one.
    """
    if suite not in SUITES:
        raise UserError(unknown_name_message("suite", suite, SUITES))
    if not names:
        return {row: ROWS[row] for row in SUITES[suite]}
    by_name = {row.lower(): row for row in ROWS}
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


def default_shots(suite: str, task: str, shots: int | None) -> int | None:
    """Return the examples that a suite gives a task; None leaves it to the task file. With a chat template, only BBH has some."""
    return 0 if shots is None and suite in CHAT_SUITES and task != "bbh" else shots


def run_suite(
    engine: Engine,
    model: str,
    suite: str,
    data_root: Path,
    output_dir: Path,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch_size: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score a model on a suite, and write what each task gave, with every item, to a folder.

    A task that an earlier run finished in the same folder, with the same model, data and settings, is taken from there.

    Args:
        engine: of the model.
        model: folder or hub name.
        suite: base, instruct or reason.
        data_root: folder of the data.
        output_dir: folder for the results.
        names: rows or tasks, in place of the suite's.
        limit: items of each task.
        shots: examples before each item; as in the guides if not set.
        batch_size: texts generated together; found by a measurement if not set.
        say: told what is being done.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: bad data, an unknown name, or a model that does not suit the suite.
    """
    rows, chat = choose_rows(suite, names), suite in CHAT_SUITES
    lm = EngineLM(engine, batch_size=batch_size, show_progress=True)
    template = getattr(engine.tokenizer, "chat_template", None)
    if chat and not template:
        raise UserError(
            f"{model} has no chat template, which the {suite} suite asks in; take --suite base, or train it to chat first"
        )
    # All data are read before anything is computed: what is missing is told at once.
    tasks = {
        name: load_task(name, data_root, default_shots(suite, name, shots), limit)
        for row in rows.values()
        for name in row
    }
    facts = {
        "model_hash": hash_model(model),
        "chat_template_hash": hashlib.sha256(template.encode()).hexdigest()[:16] if chat else None,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": find_commit(),
    }
    found = {}
    for number, (name, task) in enumerate(tasks.items(), 1):
        say(f"{name} ({number} of {len(tasks)}), {len(task.rows):,} items")
        found[name] = _run_or_read(lm, task, chat, facts, output_dir / "tasks" / f"{suite}-{name}.json", say)
    result = {
        "model": model,
        "suite": suite,
        "limit": limit,
        **facts,
        "rows": [_make_row(row, [found[name] for name in parts], suite) for row, parts in rows.items()],
    }
    write_json(output_dir / "results.json", result)
    return result


def _run_or_read(
    lm: EngineLM, task: LoadedTask, chat: bool, facts: dict[str, Any], path: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a task, or read what a former run of the same found."""
    key = {**facts, "task": task.name, "task_hash": task.task_hash, "shots": task.shots, "max_length": lm.max_length}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if all(known.get(name) == value for name, value in key.items()):
            say(f"{task.name}: taken from {path}")
            return known
    except (OSError, ValueError):
        pass  # there is none, or it was not written whole
    result = {**key, **run_task(lm, task, chat)}
    write_json(path, result)
    return result


def run_task(lm: EngineLM, task: LoadedTask, chat: bool) -> dict[str, Any]:
    """Ask the items of a task by the harness; return what each scored, with the hash of its prompt."""
    before, start = lm.notes.as_dict(), time.perf_counter()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    answer = lm_eval.simple_evaluate(
        model=lm,
        tasks=[dict(task.config)],
        num_fewshot=0,
        apply_chat_template=chat,
        task_manager=TaskManager(include_defaults=False),  # reading all of the harness's own takes seconds
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(answer["samples"][task.name], key=lambda sample: sample["doc_id"])
    metric = task.metadata["score"]
    prompts = "".join(sample["prompt_hash"] for sample in samples)
    return {
        "metric": metric,
        "form": task.metadata["form"],
        "prompt_hash": hashlib.sha256(prompts.encode()).hexdigest()[:16],
        "notes": {name: value - before[name] for name, value in lm.notes.as_dict().items()},
        "seconds": round(time.perf_counter() - start, 1),
        "items": [
            {"id": row["id"], "score": float(sample[metric]), "chance": chance, "prompt_hash": sample["prompt_hash"]}
            for row, sample, chance in zip(task.rows, samples, task.chances(), strict=True)
        ],
    }


def _make_row(name: str, parts: Sequence[dict[str, Any]], suite: str) -> dict[str, Any]:
    """Make a row of the table of what its tasks gave."""
    estimates = [
        estimate([item["score"] for item in part["items"]], [item["chance"] for item in part["items"]])
        for part in parts
    ]
    found = average(estimates)
    notes = {key: sum(part["notes"][key] for part in parts) for key in parts[0]["notes"]}
    return {
        "row": name,
        "tasks": [part["task"] for part in parts],
        **{key: getattr(found, key) for key in ("score", "stderr", "low", "high", "chance", "n", "covers_chance")},
        "above_chance": found.says_something,
        "shots": parts[0]["shots"],
        "form": parts[0]["form"],
        "metric": parts[0]["metric"],
        "chat": suite in CHAT_SUITES,
        "task_hashes": [part["task_hash"] for part in parts],
        "prompt_hashes": [part["prompt_hash"] for part in parts],
        "notes": notes,
    }
