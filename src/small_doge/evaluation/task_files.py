"""Task files and their data: what is asked, of which rows, after which examples."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import datasets
import jinja2
import pyarrow
import yaml

from ..utils.answers import find_fault, find_marked
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from . import bbh
from .task_data import MissingDataError, check_row, find_data, get_id, read_rows
from .tasks import scorers


FOLDER = Path(__file__).parent / "tasks"
_TEMPLATES = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


@dataclass
class LoadedTask:
    """A task whose rows were read.

    Attributes:
        name: of the task file.
        config: what the harness makes its task of.
        rows: the items.
        shots: examples before each item.
        task_hash: of the task file, its rows and its examples.
        notes: what a reader of the score must know of the data.
    """

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    shots: int
    task_hash: str
    notes: list[str] = field(default_factory=list)

    @property
    def metadata(self) -> dict[str, Any]:
        """Return our own entries of the task file."""
        return self.config["metadata"]

    @property
    def metrics(self) -> list[str]:
        """List what is scored of each item, the metric of the row first."""
        return [self.metadata["score"], *self.metadata.get("also", {}).values()]


class _Loader(yaml.SafeLoader):
    """Reads `!function scorers.name` as the harness does."""


_Loader.add_constructor(
    "!function", lambda loader, node: getattr(scorers, loader.construct_scalar(node).removeprefix("scorers."))
)


def list_tasks() -> list[str]:
    """List the names of the task files."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def read_task(name: str) -> dict[str, Any]:
    """Read a task file.

    Raises:
        UserError: there is none of this name.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(unknown_name_message("task", name, list_tasks()))
    return yaml.load(path.read_text(encoding="utf-8"), _Loader)


def load_task(name: str, data_root: Path, shots: int | None = None, limit: int | None = None) -> LoadedTask:
    """Read a task and its data.

    Args:
        name: of the task file.
        data_root: folder of the data, or one with `eval` and `reason` in it.
        shots: examples before each item; the number of the task file if not set.
        limit: items to take, from the first on, or from each group by turns where a task has groups; all if not set.

    Raises:
        MissingDataError: the data are not there.
        UserError: they are damaged or of another form, or there are too few examples.
    """
    config = dict(read_task(name))
    metadata = config["metadata"]
    shots = metadata["shots"] if shots is None else shots
    rows, notes = _read_questions(name, config, data_root)
    notes += _find_notes(name, rows)
    rows = [{**row, "id": get_id(row, name, number)} for number, row in enumerate(rows)]
    if "reference" in metadata:
        rows = [{**row, "final": _get_reference(row, metadata["reference"], name)} for row in rows]
        words = sum(find_fault(row["final"]) is not None for row in rows)
        if words:
            notes.append(f"{words:,} of {len(rows):,} right answers are words, and must be said as whole words")
    rows = _take(_add_shots(rows, config, data_root, shots), limit, metadata.get("group"))
    if not rows:
        raise UserError(f"task {name} has no items left; give fewer --shots")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") + json.dumps(rows, ensure_ascii=False)
    config["custom_dataset"] = _give(rows, name, metadata)
    return LoadedTask(name, config, rows, shots, hashlib.sha256(text.encode()).hexdigest()[:16], notes)


def _read_questions(name: str, config: dict[str, Any], data_root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the rows of a task, and say what was left out.

    Raises:
        MissingDataError: there are none.
    """
    metadata = config["metadata"]
    if name != "bbh":
        path = find_data(name, config["dataset_kwargs"]["data_files"]["test"], metadata, data_root)
        return read_rows(path, name, metadata), []
    rows, notes = bbh.read_questions(data_root, metadata)
    if not rows:
        raise MissingDataError(
            f"task bbh finds no questions in {data_root}, nor in its folders eval and reason; {bbh.HOW_TO_GET}. "
            "--skip-missing leaves the task out"
        )
    return rows, notes


def _find_notes(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Say which parts of a task are missing."""
    missing = bbh.list_missing(rows) if name == "bbh" else []
    if not missing:
        return []
    there = len(bbh.TASKS) - len(missing)
    return [f"{there} of {len(bbh.TASKS)} tasks; missing: {', '.join(missing)} ({bbh.HOW_TO_GET})"]


def _get_reference(row: dict[str, Any], columns: list[str], name: str) -> str:
    """Return the right answer of a row, from the first of the columns that it has.

    Raises:
        UserError: it has none of them.
    """
    found = next((row[column] for column in columns if row.get(column) not in (None, "")), None)
    if found is None:
        raise UserError(f"task {name} needs {' or '.join(columns)}; row {row['id']} has {', '.join(row)}")
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    marked = find_marked(str(found))
    return str(found) if marked is None else marked


def _take(rows: list[dict[str, Any]], limit: int | None, group: str | None) -> list[dict[str, Any]]:
    """Take the first rows, or rows of each group by turns, in the order of the whole."""
    if limit is None or group is None:
        return rows[:limit]
    places: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        places.setdefault(row[group], []).append(number)
    by_turns = (place for place in chain.from_iterable(zip_longest(*places.values())) if place is not None)
    return [rows[place] for place in sorted([place for _, place in zip(range(limit), by_turns, strict=False)])]


def _give(rows: list[dict[str, Any]], name: str, metadata: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Return a function that gives the harness these rows, with the columns that the task file names, and no others.

    Raises:
        UserError: a column holds values of different types, which a data set can't.
    """
    references = metadata.get("reference", ())
    columns = [column for column in metadata["columns"] if column not in references]
    columns += ["final"] * bool(references) + ["id", "shots"]
    try:
        found = datasets.Dataset.from_list([{column: row[column] for column in columns} for row in rows])
    except pyarrow.ArrowException as error:
        raise UserError(f"task {name}: the rows hold values of different types in one place ({error})") from error
    return lambda **_: {"test": found}


# Examples.


def _add_shots(
    rows: list[dict[str, Any]], config: dict[str, Any], data_root: Path, shots: int
) -> list[dict[str, Any]]:
    """Return the items, each with the text that comes before it: what the task says first, and its examples.

    Raises:
        MissingDataError: there are no examples.
        UserError: there are fewer examples than wanted.
    """
    metadata, name = config["metadata"], config["task"]
    head = _TEMPLATES.from_string(metadata.get("head", ""))
    if not shots:
        return [{**row, "shots": head.render(row)} for row in rows]
    file = metadata["shots_file"]
    if file is None:  # the first rows are examples, and no items
        examples, rows = rows[:shots], rows[shots:]
        text = "".join(_write_example(config, row) for row in examples)
        return [{**row, "shots": head.render(row) + text} for row in rows]
    found = bbh.read_examples(data_root) if name == "bbh" else _read_examples(config, data_root)
    given = []
    for row in rows:
        group = row.get("subject") or row.get("task") or name
        parts = found.get(group, [])[:shots]
        if len(parts) < shots:
            raise UserError(f"--shots {shots}: {file} has {len(parts)} examples for {group}")
        given.append({**row, "shots": head.render(row) + "".join(parts)})
    return given


def _read_examples(config: dict[str, Any], data_root: Path) -> dict[str, list[str]]:
    """Read examples as texts, by task or subject, from either form of file.

    Raises:
        UserError: it has another form.
    """
    name, found = config["task"], dict[str, list[str]]()
    path = find_data(name, config["metadata"]["shots_file"], config["metadata"], data_root)
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path}, row {number}"
        if "prefix" in row and "task" in row:
            if row.get("form") == "rc" and row["task"] == name:
                check_row(row, name, ["prefix"], where)
                found[name] = [_rewrite(config, part) for part in row["prefix"].split("\n\n") if part.strip()]
        elif "subject" in row:
            check_row(row, name, ["subject", "question", "choices", "answer"], where)
            found.setdefault(row["subject"], []).append(_write_example(config, row))
        else:
            raise UserError(f"{path}: examples need task and prefix, or subject, question, choices, answer")
    return found


def _rewrite(config: dict[str, Any], text: str) -> str:
    """Write an example of a file in the form of the task's questions; one without question and answer stays."""
    match = re.fullmatch(r"(?:Goal|Question): (.*)\nAnswer: (.*)", text.strip("\n"), re.DOTALL)
    if match is None or "{{question}}" not in config["doc_to_text"]:
        return f"{text}\n\n"
    return _write_example(config, {"question": match[1], "answer": match[2]})


def write_question(config: dict[str, Any], row: dict[str, Any]) -> str:
    """Write what a task asks of a row, without the examples before it."""
    return _TEMPLATES.from_string(config["doc_to_text"]).render({**row, "shots": ""})


def _write_example(config: dict[str, Any], row: dict[str, Any]) -> str:
    """Write a question with its answer."""
    template = config["metadata"].get("example")
    # A template leaves out what is not there, and would write out a null.
    row = {column: value for column, value in row.items() if value is not None}
    if template is not None:
        return _TEMPLATES.from_string(template).render(row) + "\n\n"
    question = write_question(config, row)
    answer = row["choices"][row["answer"]] if row.get("choices") else row["answer"]
    return f"{question} {answer}\n\n"
