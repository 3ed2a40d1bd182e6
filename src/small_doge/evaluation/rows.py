"""Rows of a table of scores: estimates over the items of tasks, averaged as the published tables are."""

from collections.abc import Sequence
from typing import Any

from .statistics import Estimate, average, estimate, estimate_clusters, estimate_groups, estimate_mean


Part = dict[str, Any]


def make_rows(rows: dict[str, tuple[str, ...]], parts: dict[tuple[str, int], Part]) -> list[dict[str, Any]]:
    """Make the rows of a table of what its tasks gave, one for each number of examples, and those of further metrics.

    A task none of whose items has a score is left out.

    Args:
        rows: names of the rows, with the tasks that each averages.
        parts: what the tasks gave, by name and number of examples.
    """
    made = []
    for name, tasks in rows.items():
        for shots in sorted({count for task, count in parts if task in tasks}):
            found = [parts[task, shots] for task in tasks if (task, shots) in parts and parts[task, shots]["items"]]
            if not found:
                continue
            made.append(_make_row(name, found, average([_estimate_part(part) for part in found])))
            made += _make_further_rows(name, found)
    return made


def _make_further_rows(name: str, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Make the rows of the metrics that a task has beside that of its score."""
    rows = []
    settings = parts[0]["metadata"]
    for title, metric in settings.get("also", {}).items():
        found = [_estimate_metric(part["items"], metric) for part in parts]
        rows.append(_make_row(f"{name}, {title}", parts, average(found), metric))
    for title, metric in settings.get("also_means", {}).items():
        found = [estimate_mean([item["scores"][metric] for item in part["items"]]) for part in parts]
        rows.append(_make_row(f"{name}, {title}", parts, average(found), metric, unit=""))
    if settings.get("direct") and all("direct" in item for part in parts for item in part["items"]):
        found = [estimate([item["direct"] for item in part["items"]], [0.0] * len(part["items"])) for part in parts]
        rows.append(_make_row(f"{name}, direct", parts, average(found), "direct"))
    return rows


def _estimate_part(part: Part) -> Estimate:
    """Estimate the score of a task: the mean over its groups, such as the subjects of MMLU, or over its items."""
    return estimate_groups([_list_scores(items) for items in list_groups(part).values()])


def list_groups(part: Part) -> dict[str, list[dict[str, Any]]]:
    """List the items of each group of a task."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in part["items"]:
        groups.setdefault(item.get("group", ""), []).append(item)
    return groups


def _list_scores(items: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [item["score"] for item in items], [item["chance"] for item in items]


def _estimate_metric(items: Sequence[dict[str, Any]], metric: str) -> Estimate:
    """Estimate a further share, of items or of the parts of items."""
    scores = [item["scores"][metric] for item in items]
    chances = [item["chances"][metric] for item in items]
    return estimate_clusters(scores, chances) if isinstance(scores[0], list) else estimate(scores, chances)


def _make_row(
    name: str, parts: Sequence[Part], found: Estimate, metric: str | None = None, unit: str = "%"
) -> dict[str, Any]:
    """Make a row of the table of what its tasks gave."""
    notes = [part["notes"] for part in parts if part["notes"] is not None]
    groups = {group: items for part in parts for group, items in list_groups(part).items() if group}
    return {
        "row": name,
        "tasks": [part["task"] for part in parts],
        **{key: getattr(found, key) for key in ("score", "stderr", "low", "high", "chance", "n", "covers_chance")},
        "above_chance": found.says_something,
        "is_further": metric is not None,
        "unit": unit,
        "shots": parts[0]["shots"],
        "form": parts[0]["form"],
        "prompt": parts[0]["prompt"],
        "metric": metric or parts[0]["metric"],
        "chat": parts[0]["chat"],
        "groups": None if metric else {name: _tell_group(items) for name, items in groups.items()} or None,
        "task_hashes": [part["task_hash"] for part in parts],
        "prompt_hashes": [part["prompt_hash"] for part in parts],
        "notes": {key: sum(note[key] for note in notes) for key in notes[0]} if notes else None,
        "chance_scores": {} if metric else {part["task"]: part["chance_scores"] for part in parts},
        "data_notes": [f"{part['task']}: {note}" for part in parts for note in part["data_notes"]],
    }


def _tell_group(items: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the score of a group, its chance level and its number of items."""
    found = estimate(*_list_scores(items))
    return {"score": found.score, "chance": found.chance, "n": found.n}
