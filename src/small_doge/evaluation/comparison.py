"""Results of `small-doge eval` beside each other, item by item."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.paths import find_near_names
from .paired import LEVEL, PairedTest, adjust_by_holm, compare_pairs
from .suites import name_settings


RESULTS = "results.json"
AVERAGE = "average"
SAME_MEANING = ("metric", "form")  # of a task: other ones are other scores


@dataclass
class ScoredModel:
    """A model and what it scored.

    Attributes:
        name: of the model.
        result: content of `results.json`.
        tasks: content of the files in `tasks`, by task.
    """

    name: str
    result: dict[str, Any]
    tasks: dict[str, dict[str, Any]]


@dataclass
class Pairs:
    """Scores of two models on the items of a task that both were asked.

    Attributes:
        scores: [2, n], of the first and of the second.
        groups: [n], the group of each item, such as the subject of MMLU; "" where there are none.
        alone: items that one of them alone was asked, first and second.
        other_prompts: items of one name with different questions, which were left out.
    """

    scores: np.ndarray
    groups: np.ndarray
    alone: tuple[int, int] = (0, 0)
    other_prompts: int = 0

    def split(self) -> list[np.ndarray]:
        """Return the scores of each group, whose mean is the score of the task."""
        return [self.scores[:, self.groups == group] for group in np.unique(self.groups)]


@dataclass
class Comparison:
    """A model against the first.

    Attributes:
        model: the model.
        rows: tests, by row of the table; the last is the average where there are several.
        notes: what differs in how they were asked, and what was left out.
    """

    model: ScoredModel
    rows: dict[str, PairedTest] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_scores(folder: Path) -> ScoredModel:
    """Read what `small-doge eval` left in a folder.

    Raises:
        UserError: there is nothing, it is damaged, or a later run that was not finished left items of something else.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(f"{folder} has no {RESULTS}{find_near_names(path)}; make it with: small-doge eval MODEL")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["rows"] = [row for row in result["rows"] if not row["is_further"]]  # of other metrics of the same items
        files, hashes = dict[str, Path](), dict[str, str]()
        settings = name_settings(result["suite"], result["limit"], result.get("chat"))
        several = Counter(row["row"] for row in result["rows"])
        for row in result["rows"]:
            # Rows that were asked after several numbers of examples are told apart by these.
            shots = f", {row['shots']}-shot" if several[row["row"]] > 1 else ""
            for name, task_hash in zip(row["tasks"], row["task_hashes"], strict=True):
                file = f"{result['suite']}-{name}-{row['shots']}shot{settings}.json"
                files[name + shots], hashes[name + shots] = folder / "tasks" / file, task_hash
            row["row"], row["tasks"] = row["row"] + shots, [name + shots for name in row["tasks"]]
        tasks = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}
        for name, task in tasks.items():
            _check_same(files[name], task, {"model_hash": result["model_hash"], "task_hash": hashes[name]})
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not whole ({error}); run small-doge eval again with the same settings"
        ) from error
    return ScoredModel(result["model"], result, tasks)


def _check_same(file: Path, task: dict[str, Any], facts: dict[str, str]) -> None:
    """Refuse items of another model or of other rows than the table: a run writes them first, and the table at its end.

    Raises:
        UserError: they are.
    """
    for name, kind in (("model_hash", "model"), ("task_hash", "version of the task")):
        if task[name] != facts[name]:
            raise UserError(
                f"{file} is of another {kind} than {RESULTS} beside it, as after a run that did not finish; run small-doge "
                "eval again with the same settings"
            )


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds a model."""
    return (folder / "config.json").is_file()


def compare_models(models: Sequence[ScoredModel]) -> list[Comparison]:
    """Compare each model with the first, row by row, on the items that both were asked.

    Raises:
        UserError: two of them have nothing in common.
    """
    first, *others = models
    return [_compare(first, other) for other in others]


def _compare(first: ScoredModel, second: ScoredModel) -> Comparison:
    """Compare two models."""
    found = Comparison(second, notes=_find_differences(first, second))
    all_parts: list[list[list[np.ndarray]]] = []  # of each row, of each task, the groups
    rows = {row["row"]: row["tasks"] for row in first.result["rows"]}
    theirs = {row["row"]: row["tasks"] for row in second.result["rows"]}
    for name, owner in [
        *((n, first) for n in rows if n not in theirs),
        *((n, second) for n in theirs if n not in rows),
    ]:
        found.notes.append(f"{name}: left out, only {owner.name} was asked.")
    for name in (name for name in rows if name in theirs):
        if rows[name] != theirs[name]:
            found.notes.append(f"{name}: left out, made of {', '.join(rows[name])} and of {', '.join(theirs[name])}.")
            continue
        parts = [_pair_task(name, task, first, second, found.notes) for task in rows[name]]
        if all(part is not None for part in parts):
            scores = [part.split() for part in parts]
            found.rows[name] = _test([scores])
            all_parts.append(scores)
    if not found.rows:
        raise UserError(
            f"{first.name} and {second.name} have no items in common: {' '.join(found.notes)} Score both with the same "
            "--suite, --tasks and --data-root"
        )
    if len(all_parts) > 1:
        found.rows[AVERAGE] = _test(all_parts)
    _note_chance(found)
    return found


def _test(rows: Sequence[Sequence[Sequence[np.ndarray]]]) -> PairedTest:
    """Compare the average over rows, each the average of its tasks, each the average of its groups."""
    parts = [(1 / len(rows) / len(row) / len(task), scores) for row in rows for task in row for scores in task]
    return compare_pairs([(scores[0], scores[1]) for _, scores in parts], [weight for weight, _ in parts])


def _pair_task(row: str, task: str, first: ScoredModel, second: ScoredModel, notes: list[str]) -> Pairs | None:
    """Pair the items of a task, and note what keeps some or all of them out."""
    a, b = first.tasks[task], second.tasks[task]
    for name in SAME_MEANING:
        if a[name] != b[name]:
            notes.append(f"{row}: left out, {task} has {name} {a[name]} and {b[name]}.")
            return None
    asked_alike = a["shots"] == b["shots"] and a["chat_template_hash"] == b["chat_template_hash"]
    if a["shots"] != b["shots"]:
        notes.append(
            f"{row}: {task} has {a['shots']} and {b['shots']} examples: the same items, asked in another way."
        )
    pairs = pair_items(a["items"], b["items"], asked_alike)
    if any(pairs.alone):
        notes.append(f"{row}: {task} has {pairs.alone[0]} and {pairs.alone[1]} items that the other lacks; left out.")
    if pairs.other_prompts:
        notes.append(f"{row}: {pairs.other_prompts} items of {task} have other prompts under the same name; left out.")
    if not pairs.scores.shape[1]:
        notes.append(f"{row}: left out, no item of {task} is in both.")
        return None
    return pairs


def pair_items(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], asked_alike: bool = True) -> Pairs:
    """Pair items by their names.

    Args:
        first: items of a task, each with `id`, `score` and `prompt_hash`.
        second: those of the other model.
        asked_alike: whether the prompts of an item must be equal: with the same examples and chat template, another
            prompt is another question.
    """
    a, b = number_items(first), number_items(second)
    shared = [key for key in a if key in b]
    kept = [key for key in shared if not asked_alike or a[key]["prompt_hash"] == b[key]["prompt_hash"]]
    scores = np.array([[items[key]["score"] for key in kept] for items in (a, b)], dtype=float)
    groups = np.array([a[key].get("group", "") for key in kept], dtype=str)
    return Pairs(scores, groups, (len(a) - len(shared), len(b) - len(shared)), len(shared) - len(kept))


def number_items(items: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return items by name; those of one name are numbered."""
    seen: Counter[str] = Counter()
    found = {}
    for item in items:
        name = str(item["id"])
        found[name, seen[name]] = item
        seen[name] += 1
    return found


def _find_differences(first: ScoredModel, second: ScoredModel) -> list[str]:
    """Say what differs between two results beside the model."""
    a, b = first.result, second.result
    notes = []
    if a["model_hash"] == b["model_hash"]:
        notes.append(f"{first.name} and {second.name} are the same model.")
    if a["chat_template_hash"] != b["chat_template_hash"]:
        how = [r["chat_template_hash"] or "none" for r in (a, b)]
        notes.append(f"Chat templates differ ({how[0]}, {how[1]}): the same items, asked in another way.")
    if a["versions"] != b["versions"]:
        names = sorted(n for n in {*a["versions"], *b["versions"]} if a["versions"].get(n) != b["versions"].get(n))
        pairs = (f"{n} {a['versions'].get(n)} and {b['versions'].get(n)}" for n in names)
        notes.append(f"Versions differ: {', '.join(pairs)}.")
    if a["commit"] != b["commit"]:
        notes.append(f"Scored by different commits: {a['commit'] or 'unknown'} and {b['commit'] or 'unknown'}.")
    for model in (first, second):
        cut = sum((row["notes"] or {}).get("num_cut", 0) for row in model.result["rows"])
        if cut:
            notes.append(f"{model.name}: {cut} texts were too long and were cut.")
        left = sum((row["notes"] or {}).get("num_left_out", 0) for row in model.result["rows"])
        if left:
            notes.append(
                f"{model.name}: {left} items were left out: one of their choices is longer than the model takes."
            )
    return notes


def _note_chance(found: Comparison) -> None:
    """Say how many rows would seem to differ by luck, and which still do when that is taken into account."""
    p_values = {name: test.p_value for name, test in found.rows.items() if name != AVERAGE}
    untested = [name for name, value in p_values.items() if value is None]
    if len(p_values) < 2 or len(untested) == len(p_values):
        return
    adjusted = adjust_by_holm([1.0 if value is None else value for value in p_values.values()])
    sure = [name for name, value in zip(p_values, adjusted, strict=True) if value < LEVEL]
    found.notes.append(
        f"Of {len(p_values)} rows of equal models, {len(p_values) * LEVEL:.1f} differ by luck. By Holm's correction for that, "
        + (f"these differ: {', '.join(sure)}." if sure else "none differs.")
        + (f" Without p, and so not corrected: {', '.join(untested)}." if untested else "")
    )


def count_weight_bytes(model: str) -> int | None:
    """Count the bytes of a model's files of weights; None for one that is not in a folder here."""
    folder = Path(model)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.onnx*")] if folder.is_dir() else []
    return sum(file.stat().st_size for file in files) or None


def describe_comparisons(first: ScoredModel, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return the content of `comparison.json`."""

    def describe(model: ScoredModel) -> dict[str, Any]:
        facts = {name: model.result[name] for name in ("suite", "model_hash", "commit", "limit")}
        return {"model": model.name, "weight_bytes": count_weight_bytes(model.name), **facts}

    return {
        "first": describe(first),
        "others": [
            {
                **describe(comparison.model),
                "rows": {
                    name: {**asdict(test), "is_sure": test.is_sure, "missing": test.missing}
                    for name, test in comparison.rows.items()
                },
                "notes": comparison.notes,
            }
            for comparison in comparisons
        ],
    }
