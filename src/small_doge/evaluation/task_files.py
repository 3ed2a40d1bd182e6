"""Task files and their data: what is asked, of which rows, after which examples."""

import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import yaml

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .tasks import scorers


FOLDER = Path(__file__).parent / "tasks"
SUBFOLDERS = ("", "eval", "reason")  # of a data root


@dataclass
class LoadedTask:
    """A task whose rows were read.

    Attributes:
        name: of the task file.
        config: what the harness makes its task of.
        rows: the items.
        shots: examples before each item.
        task_hash: of the task file, its rows and its examples.
    """

    name: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    shots: int
    task_hash: str

    @property
    def metadata(self) -> dict[str, Any]:
        """Return our own entries of the task file."""
        return self.config["metadata"]

    def chances(self) -> list[float]:
        """Return how likely a guess is right, by item: nothing is guessed where an answer is generated freely."""
        return [1 / len(row["choices"]) if row.get("choices") else 0.0 for row in self.rows]


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
        limit: items to take, from the first on; all if not set.

    Raises:
        UserError: the data are missing, damaged or of another form, or there are too few examples.
    """
    config = dict(read_task(name))
    metadata = config["metadata"]
    shots = metadata["shots"] if shots is None else shots
    rows = read_rows(
        find_data(name, config["dataset_kwargs"]["data_files"]["test"], metadata, data_root), name, metadata
    )
    rows = _add_shots(rows, config, data_root, shots)[:limit]
    if not rows:
        raise UserError(f"task {name} has no items left; give fewer --shots")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") + json.dumps(rows, ensure_ascii=False)
    config["custom_dataset"] = _give(rows)
    return LoadedTask(name, config, rows, shots, hashlib.sha256(text.encode()).hexdigest()[:16])


def _give(rows: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a function that gives the harness these rows."""
    return lambda **_: {"test": datasets.Dataset.from_list(rows)}


def find_data(name: str, file: str, metadata: dict[str, Any], data_root: Path) -> Path:
    """Find a data file, packed or not.

    Raises:
        UserError: it is not there; the message says what belongs in it.
    """
    names = [file, file.removesuffix(".gz")]
    for folder in (data_root / sub for sub in SUBFOLDERS):
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    raise UserError(
        f"task {name} needs {file}, which is not in {data_root}, nor in its folders eval and reason. Name the folder that "
        f"has it with --data-root, or write one JSON object a line with {', '.join(metadata['columns'])}, from: "
        f"{metadata['source']}"
    )


def read_rows(path: Path, name: str = "", metadata: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Read JSON lines, packed by gzip or not.

    Raises:
        UserError: a line is no JSON object, or lacks a column that the task needs.
    """
    columns = metadata["columns"] if metadata else []
    rows = []
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = text.decode("utf-8-sig").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}); fetch it again") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: no JSON ({error})") from error
        lost = [column for column in columns if not isinstance(row, dict) or column not in row]
        if lost:
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"{path}, line {number}: task {name} needs {', '.join(lost)} too; the line has {has}")
        if columns and metadata and metadata["score"] != "exact_match":
            _check_choices(row, f"{path}, line {number}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def _check_choices(row: dict[str, Any], where: str) -> None:
    """Refuse an answer that names none of the choices.

    Raises:
        UserError: it does.
    """
    choices, answer = row["choices"], row["answer"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise UserError(f"{where}: choices must be a list of two or more texts")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise UserError(f"{where}: answer {answer!r} must be the place of the right choice, 0 to {len(choices) - 1}")


# Examples.


def _add_shots(
    rows: list[dict[str, Any]], config: dict[str, Any], data_root: Path, shots: int
) -> list[dict[str, Any]]:
    """Return the items, each with the text of its examples.

    Raises:
        UserError: there are fewer examples than wanted.
    """
    if not shots:
        return [{**row, "shots": ""} for row in rows]
    metadata, name = config["metadata"], config["task"]
    file = metadata["shots_file"]
    if file is None:  # the first rows are examples, and no items
        parts, rows = [_write_example(name, row) for row in rows[:shots]], rows[shots:]
        return [{**row, "shots": "".join(parts)} for row in rows]
    found = _read_examples(name, find_data(name, file, metadata, data_root))
    given = []
    for row in rows:
        group = row.get("subject") or row.get("task") or name
        parts = found.get(group, [])[:shots]
        if len(parts) < shots:
            raise UserError(f"--shots {shots}: {file} has {len(parts)} examples for {group}")
        given.append({**row, "shots": "".join(parts)})
    return given


def _read_examples(name: str, path: Path) -> dict[str, list[str]]:
    """Read examples as texts, by task or subject, from any of the three forms of file.

    Raises:
        UserError: it has another form.
    """
    found: dict[str, list[str]] = {}
    for row in read_rows(path):
        if "prefix" in row:
            if row.get("form") == "rc":
                found[row["task"]] = [f"{part}\n\n" for part in row["prefix"].split("\n\n") if part.strip()]
        elif "cot_prompt" in row:
            found[row["task"]] = _drop_thoughts(row["cot_prompt"])
        elif "subject" in row:
            found.setdefault(row["subject"], []).append(_write_example(name, row))
        else:
            raise UserError(
                f"{path}: examples need task and prefix, task and cot_prompt, or subject, question, choices, answer"
            )
    return found


def _write_example(name: str, row: dict[str, Any]) -> str:
    """Write a question with its answer."""
    if name == "gsm8k":
        return f"{row['question']}\n{row.get('rationale', '')}\nThe answer is {row['final']}.\n\n"
    answer = row["choices"][row["answer"]] if row.get("choices") else row["answer"]
    return f"Question: {row['question']}\nAnswer: {answer}\n\n"


def _drop_thoughts(prompt: str) -> list[str]:
    """Return the examples of a chain-of-thought prompt with their answers alone; the first has the task's description."""
    description, *examples = re.split(r"\n\n(?=Q: )", prompt.strip())
    parts = []
    for example in examples:
        question = example.split("\nA: ")[0]
        answer = re.findall(r"So the answer is (.*?)\.?\s*$", example)
        if answer:
            parts.append(f"{question}\nA: {answer[-1]}\n\n")
    return [f"{description}\n\n{parts[0]}", *parts[1:]] if parts else []
