"""The data of tasks: JSON lines, found in a data root and checked before anything is computed."""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..utils.errors import UserError


SUBFOLDERS = ("", "eval", "reason")  # of a data root
EMBEDDED = Path(__file__).parent / "tasks" / "demo"  # what is in the package
ID_COLUMNS = ("id", "ID", "unique_id", "key")
SHOWN = 60  # characters of a wrong value


def _is_value(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


# What a column holds in every task that has it: in words, and how to tell; a text where nothing else is said.
TEXT: tuple[str, Callable[[Any], bool]] = "a text", lambda value: isinstance(value, str)
TEXTS = "a list of texts", partial(_is_list_of, str)
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "aliases": TEXTS,
    "instruction_id_list": TEXTS,
    "kwargs": ("a list of objects", partial(_is_list_of, dict)),
    "Answer": ("a number or a text", _is_value),
}


class MissingDataError(UserError):
    """The file of a task is not there."""


def list_folders(data_root: Path) -> list[Path]:
    """List the folders of a data root that data may lie in."""
    return [data_root / name for name in SUBFOLDERS]


def find_data(name: str, file: str, metadata: dict[str, Any], data_root: Path) -> Path:
    """Find a data file, packed or not.

    Raises:
        MissingDataError: it is not there; the message says what belongs in it.
    """
    folders = [EMBEDDED] if metadata.get("embedded") else list_folders(data_root)
    for folder in folders:
        for candidate in (file, file.removesuffix(".gz")):
            if (folder / candidate).is_file():
                return folder / candidate
    raise MissingDataError(
        f"task {name} needs {file}, which is not in {data_root}, nor in its folders eval and reason. Name the folder that "
        f"has it with --data-root, or write one JSON object a line with {', '.join(metadata['columns'])}, from: "
        f"{metadata['source']}. --skip-missing leaves such tasks out"
    )


def read_rows(path: Path, name: str = "", metadata: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Read JSON lines, packed by gzip or not.

    Raises:
        UserError: the file is damaged; or a line is no JSON object, or lacks a column that the task needs, or has something
            else in it.
    """
    rows = []
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = text.decode("utf-8-sig").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}); fetch it again") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: each line must be a JSON object; the line has {type(row).__name__}")
        if metadata:
            check_row(row, name, metadata["columns"], where)
            _check_references(row, name, metadata.get("reference", ()), where)
            if name == "winogrande":
                _check_blank(row, where)
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def get_id(row: dict[str, Any], name: str, number: int) -> str:
    """Return what names an item: a column of its row, or else its place."""
    return str(next((row[column] for column in ID_COLUMNS if row.get(column) is not None), f"{name}-{number}"))


def check_row(row: dict[str, Any], name: str, columns: Sequence[str], where: str) -> None:
    """Check that a row has columns, and that each of them holds what tasks take it for.

    Args:
        row: of task data.
        name: of the task.
        columns: that it needs.
        where: the row stands, for messages.

    Raises:
        UserError: one is missing, or holds something else.
    """
    lost = [column for column in columns if column not in row]
    if lost:
        raise UserError(f"{where}: task {name} needs {', '.join(lost)} too; the line has {', '.join(row)}")
    if "choices" in columns:
        _check_choices(row, where)
    for column in columns:
        if column != "choices" and not (column == "answer" and "choices" in columns):
            _check_value(row, column, name, where)
    if "kwargs" in columns and len(row["kwargs"]) != len(row["instruction_id_list"]):
        raise UserError(
            f"{where}: kwargs has {len(row['kwargs'])} entries for {len(row['instruction_id_list'])} instructions; it must "
            "have one for each"
        )


def _check_references(row: dict[str, Any], name: str, columns: Sequence[str], where: str) -> None:
    """Check the columns that may hold the right answer, of which a row has at least one.

    Raises:
        UserError: one holds neither a text nor a number.
    """
    for column in columns:
        if row.get(column) is not None and not _is_value(row[column]):
            raise UserError(_tell_kind(row, column, name, where, "a number or a text"))


def _check_value(row: dict[str, Any], column: str, name: str, where: str) -> None:
    kind, is_right = KINDS.get(column, TEXT)
    if not is_right(row[column]):
        raise UserError(_tell_kind(row, column, name, where, kind))


def _tell_kind(row: dict[str, Any], column: str, name: str, where: str, kind: str) -> str:
    value = json.dumps(row[column], ensure_ascii=False)
    return f"{where}: {column} of task {name} must be {kind}, and is {value[:SHOWN]}"


def _check_blank(row: dict[str, Any], where: str) -> None:
    """Refuse a sentence in which nothing follows the choice, since what follows is scored, and more than two choices.

    Raises:
        UserError: the row is such a one.
    """
    if not row["question"].partition("_")[2].strip():
        raise UserError(f"{where}: question of task winogrande must have text after a _ that stands for the choice")
    if len(row["choices"]) != 2:
        raise UserError(f"{where}: task winogrande asks two choices, and the line has {len(row['choices'])}")


def _check_choices(row: dict[str, Any], where: str) -> None:
    """Refuse an answer that names none of the choices.

    Raises:
        UserError: it does.
    """
    choices, answer = row["choices"], row["answer"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise UserError(f"{where}: choices must be a list of two or more texts")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise UserError(f"{where}: answer {answer!r} must be the place of the right choice, 0 to {len(choices) - 1}")
