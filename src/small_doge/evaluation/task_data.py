"""The data of tasks: JSON lines, found in a data root and checked before anything is computed."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from ..utils.errors import UserError


SUBFOLDERS = ("", "eval", "reason")  # of a data root
EMBEDDED = Path(__file__).parent / "tasks" / "demo"  # what is in the package
ID_COLUMNS = ("id", "ID", "unique_id", "key")


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
        UserError: the file is damaged; or a line is no JSON object, or lacks a column that the task needs.
    """
    columns = metadata["columns"] if metadata else []
    rows = []
    try:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = text.decode("utf-8-sig").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
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
        if "choices" in columns:
            _check_choices(row, f"{path}, line {number}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def get_id(row: dict[str, Any], name: str, number: int) -> str:
    """Return what names an item: a column of its row, or else its place."""
    return str(next((row[column] for column in ID_COLUMNS if row.get(column) is not None), f"{name}-{number}"))


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
