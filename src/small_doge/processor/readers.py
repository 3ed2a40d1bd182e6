"""Parts of sources: ranges of rows of files, local or remote, read from any position.

A reader yields `Record`s; `next` of a record is the position from which reading goes on after it.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from ..utils.errors import UserError
from .corpus import iterate_documents


try:  # what the hub's library speaks HTTP with
    from httpx2 import HTTPError
except ImportError:
    from httpx import HTTPError  # type: ignore[assignment]


LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz")
TEXT = (".txt", ".txt.gz", ".md")
GZIP = b"\x1f\x8b"
# Of other encodings than UTF-8; a file of UTF-8 may begin with a mark too, which is no text.
BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
FILE_SUFFIXES = (*LINES, ".parquet", ".arrow", *TEXT)
CONNECTION_ERRORS = (OSError, HTTPError)
# Bytes of plain lines, and rows of parquet, arrow and the embedded corpus, that make a file_range.
RANGE_BYTES = 16 * 2**20
RANGE_ROWS = 50_000
PARAGRAPH = 2000


class Record(NamedTuple):
    """A row, or why there is none; where it stands; and where the next one starts."""

    row: dict[str, Any] | None
    problem: str
    where: str
    next: int


@dataclass(frozen=True)
class FileRange:
    """A range of a file.

    Args:
        kind: lines, array, text, parquet, arrow or embedded.
        path: local path, URL, or the kind of document of the embedded corpus.
        start: first byte of plain lines, first row group of parquet, else first row.
        stop: end of the range, or None for all.
        size: bytes or, where these are not known, an estimate: for grouping ranges alone.
        version: of the file's content: size and time of change.
        packed: whether it is compressed by gzip, whatever its name says.
    """

    kind: str
    path: str
    start: int = 0
    stop: int | None = None
    size: int = 0
    version: str = ""
    packed: bool = False

    def read(self, position: int | None = None) -> Iterator[Record]:
        """Yield the records from a position that an earlier record named, or from the start.

        Raises:
            ValueError: the file is torn, damaged, or can't be read.
        """
        last = "its start"
        try:
            for record in _READERS[self.kind](self, self.start if position is None else position):
                yield record
                last = record.where.removeprefix(Path(self.path).name).strip()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{self.path} is damaged after {last} ({error}); fetch it again") from error
        except (pa.ArrowException, OSError, HTTPError) as error:
            raise UserError(
                f"{self.path} can't be read ({error}); if it is torn, fetch it again; if the connection was lost, run again"
            ) from error


def split_file(path: str) -> list[FileRange]:
    """Split a file, local or remote, into ranges.

    Raises:
        ValueError: an unknown kind of file, or one that can't be read.
    """
    kind = _kind_of(path)
    size, version = _describe(path)
    if kind == "parquet":
        try:
            with fsspec.open(path, "rb") as file:
                metadata = pq.ParquetFile(file).metadata
            groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable parquet file ({error}); fetch it again") from error
        return [FileRange(kind, path, a, b, sum(groups[a:b]), version) for a, b in _group(groups, RANGE_BYTES)]
    if kind == "arrow":
        try:
            rows = len(Dataset.from_file(path))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable arrow file ({error}); make it again") from error
        return [
            FileRange(kind, path, a, min(a + RANGE_ROWS, rows), size * RANGE_ROWS // max(rows, 1), version)
            for a in range(0, rows, RANGE_ROWS)
        ]
    packed = _is_packed(path)
    _check_encoding(path, packed)
    if kind == "lines" and _holds_array(path, packed):
        kind = "array"
    if kind == "lines" and not packed:
        return [
            FileRange(kind, path, a, min(a + RANGE_BYTES, size), min(RANGE_BYTES, size - a), version)
            for a in range(0, size, RANGE_BYTES)
        ]
    return [FileRange(kind, path, 0, None, size * 3 if packed else size, version, packed)]


def _open(path: str, packed: bool) -> Any:
    return fsspec.open(path, "rb", compression="gzip" if packed else None)


def _is_packed(path: str) -> bool:
    """Tell by the first bytes: some files are named .gz and are not packed, or are packed without the name."""
    with fsspec.open(path, "rb") as file:
        return file.read(len(GZIP)) == GZIP


def _check_encoding(path: str, packed: bool) -> None:
    """Raise a `ValueError` for another encoding than UTF-8 that announces itself."""
    try:
        with _open(path, packed) as file:
            encoding = BYTE_ORDER_MARKS.get(file.read(2))
    except (EOFError, gzip.BadGzipFile, zlib.error):  # told with its place when it is read
        return
    if encoding is not None:
        raise UserError(f"{path} is {encoding}, not UTF-8; convert it: iconv -f {encoding} -t UTF-8 {path} > NEW_FILE")


def embedded_ranges(kind: str, documents: int) -> list[FileRange]:
    """Parts of the embedded corpus; its documents are about 500 characters long."""
    return [
        FileRange("embedded", kind, a, min(a + RANGE_ROWS, documents), 500 * min(RANGE_ROWS, documents - a))
        for a in range(0, documents, RANGE_ROWS)
    ]


def _group(sizes: list[int], limit: int) -> Iterator[tuple[int, int]]:
    start = total = 0
    for index, size in enumerate(sizes):
        total += size
        if total >= limit or index == len(sizes) - 1:
            yield start, index + 1
            start, total = index + 1, 0


def _kind_of(path: str) -> str:
    name, path = path, path.lower()
    if path.endswith(LINES):
        return "lines"
    if path.endswith(TEXT):
        return "text"
    for kind in ("parquet", "arrow"):
        if path.endswith("." + kind):
            return kind
    raise UserError(f"{name}: unknown kind of file; expected {', '.join(FILE_SUFFIXES)}")


def _describe(path: str) -> tuple[int, str]:
    if Path(path).exists():
        stat = Path(path).stat()
        return stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}"
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        info = filesystem.info(inner)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); check the name and the connection") from error
    return int(info.get("size") or 0), str(info.get("ETag") or info.get("blob_id") or info.get("size"))


def _iterate_lines(file_range: FileRange, position: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number of the line or its byte, position of the next, line). Lines that start before `file_range.stop` belong here."""
    with _open(file_range.path, file_range.packed) as file:
        if file_range.packed:  # positions are line numbers: what comes before is unpacked, not parsed
            for number, line in enumerate(file):
                if number >= position:
                    yield number + 1, number + 1, line
            return
        if (
            position > 0 and position == file_range.start
        ):  # the line that reaches into the range belongs to the one before
            file.seek(position - 1)
            position += len(file.readline()) - 1
        else:
            file.seek(position)
        stop = file_range.stop if file_range.stop is not None else float("inf")
        while position < stop and (line := file.readline()):
            position += len(line)
            yield position - len(line), position, line


def _read_lines(file_range: FileRange, position: int) -> Iterator[Record]:
    name = Path(file_range.path).name
    unit = "line" if file_range.packed else "byte"
    for number, following, line in _iterate_lines(file_range, position):
        if not line.strip():
            continue
        where = f"{name} {unit} {number}"
        try:
            row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Record(None, f"invalid UTF-8 at byte {error.start}", where, following)
            continue
        except json.JSONDecodeError as error:
            hint = ", and zero bytes: is the file UTF-16?" if b"\0" in line else ""
            yield Record(None, f"invalid JSON ({error.msg}){hint}", where, following)
            continue
        except RecursionError:
            yield Record(None, "JSON that is nested too deeply", where, following)
            continue
        yield _check_row(row, where, following, may_hold_surrogates=b"\\u" in line)


def _check_row(row: Any, where: str, following: int, may_hold_surrogates: bool = True) -> Record:
    """Make a record of what a line or an entry holds, if it is a row of text that can be encoded."""
    if not isinstance(row, dict):
        return Record(None, "not a JSON object", where, following)
    if may_hold_surrogates:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            return Record(None, f"half of a surrogate pair ({error.object[error.start]!a})", where, following)
    return Record(row, "", where, following)


def _holds_array(path: str, packed: bool) -> bool:
    """Tell whether a file of JSON is one array of rows rather than a row a line."""
    try:
        with _open(path, packed) as file:
            first = file.readline().removeprefix(codecs.BOM_UTF8).strip()
            while not first and (line := file.readline()):
                first = line.strip()
            if not first.startswith(b"["):
                return False
            try:
                json.loads(first)
            except RecursionError:
                return False
            except ValueError:
                return True  # it goes on in the lines that follow
            return not any(line.strip() for line in file)
    except (EOFError, gzip.BadGzipFile, zlib.error):  # told with its place when it is read
        return False


def _read_array(file_range: FileRange, position: int) -> Iterator[Record]:
    with _open(file_range.path, file_range.packed) as file:
        try:
            rows = json.loads(file.read().removeprefix(codecs.BOM_UTF8))
        except ValueError as error:
            raise UserError(f"{file_range.path} is not valid JSON: {error}") from error
    for number, row in enumerate(rows[position:], start=position):
        yield _check_row(row, f"{Path(file_range.path).name} entry {number}", number + 1)


def _read_text(file_range: FileRange, position: int) -> Iterator[Record]:
    """Yield paragraphs, joined until they make about 2,000 characters. Positions are line numbers."""
    lines: list[str] = []
    size, number = 0, position
    where = f"{Path(file_range.path).name} line {{}}"
    with _open(file_range.path, file_range.packed) as file:
        for number, raw in enumerate(file, start=1):
            if number <= position:
                continue
            try:
                line = (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).decode("utf-8")
            except UnicodeDecodeError as error:
                yield Record(None, f"invalid UTF-8 at byte {error.start}", where.format(number), number)
                continue
            lines.append(line)
            size += len(line)
            if size > PARAGRAPH and not line.strip():
                yield Record({"text": "".join(lines).strip()}, "", where.format(number), number)
                lines, size = [], 0
    if "".join(lines).strip():
        yield Record({"text": "".join(lines).strip()}, "", where.format(number), number)


# A range of parquet starts at a group; a position inside it is (group + 1) * 2^32 + row of the group.
_ROW_BITS = 32


def _read_parquet(file_range: FileRange, position: int) -> Iterator[Record]:
    inside = position >= 2**_ROW_BITS
    group, skip = ((position >> _ROW_BITS) - 1, position % 2**_ROW_BITS) if inside else (position, 0)
    name = Path(file_range.path).name
    with fsspec.open(file_range.path, "rb") as file:
        parquet = pq.ParquetFile(file)
        stop = file_range.stop if file_range.stop is not None else parquet.metadata.num_row_groups
        for index in range(group, stop):
            number = 0
            for batch in parquet.iter_batches(256, row_groups=[index]):
                if number + len(batch) > skip:
                    for offset, row in enumerate(batch.to_pylist()):
                        if number + offset >= skip:
                            following = ((index + 1) << _ROW_BITS) + number + offset + 1
                            yield Record(row, "", f"{name} group {index} row {number + offset}", following)
                number += len(batch)
            skip = 0


def _read_arrow(file_range: FileRange, position: int) -> Iterator[Record]:
    rows = Dataset.from_file(file_range.path)
    for start in range(position, file_range.stop, 256):
        batch = rows.with_format("arrow")[start : min(start + 256, file_range.stop)].to_pylist()
        for number, row in enumerate(batch, start=start):
            yield Record(row, "", f"{Path(file_range.path).name} row {number}", number + 1)


def _read_embedded(file_range: FileRange, position: int) -> Iterator[Record]:
    for number, row in enumerate(iterate_documents(file_range.path, file_range.stop, start=position), start=position):
        yield Record(row, "", f"{file_range.path} document {number}", number + 1)


_READERS: dict[str, Callable[[FileRange, int], Iterator[Record]]] = {
    "lines": _read_lines,
    "array": _read_array,
    "text": _read_text,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "embedded": _read_embedded,
}
