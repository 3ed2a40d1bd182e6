"""Where texts come from: the embedded corpus, local files, saved data sets, the hub."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from ..utils.suggest import unknown_name_message
from .corpus import PROPORTIONS, iterate_documents


EMBEDDED_PREFIX = "embedded"
DEFAULT_EMBEDDED_DOCUMENTS = 10_000
FILE_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".txt", ".txt.gz")

# The guides' names: hub name, subset, field with the text.
HUB_SOURCES: dict[str, tuple[str, str | None, str]] = {
    "fineweb-edu": ("HuggingFaceTB/smollm-corpus", "fineweb-edu-dedup", "text"),
    "cosmopedia-v2": ("HuggingFaceTB/smollm-corpus", "cosmopedia-v2", "text"),
    "finemath": ("HuggingFaceTB/finemath", "finemath-4plus", "text"),
}


def open_source(name: str, cache_dir: str | None = None) -> Dataset:
    """All rows of a source, on disk rather than in memory. Lines that can't be read become rows with a `_problem`.

    Args:
        name: `embedded:KIND[:DOCUMENTS]`, a file or folder, a name of the guides, or `owner/name[:subset]`.
        cache_dir: where the rows are kept.

    Raises:
        ValueError: an unknown name, with the nearest known; an unreadable or empty source.
    """
    check_source_name(name)
    if name.split(":", 1)[0] == EMBEDDED_PREFIX:
        source = _open_embedded(name, cache_dir)
    elif Path(name).exists():
        source = _open_path(Path(name), cache_dir)
    elif name in HUB_SOURCES:
        source = _open_hub(*HUB_SOURCES[name][:2], cache_dir)
    else:
        hub_name, _, subset = name.partition(":")
        source = _open_hub(hub_name, subset or None, cache_dir)
    if len(source) == 0:
        raise ValueError(f"data set {name!r} is empty")
    return source


def check_source_name(name: str) -> None:
    """Refuse a name that leads nowhere, before any source of a mix is fetched.

    Raises:
        ValueError: an unknown name, with the nearest known, or one that can't be fetched.
    """
    prefix, _, rest = name.partition(":")
    if prefix == EMBEDDED_PREFIX:
        kind, _, count = rest.partition(":")
        if kind not in PROPORTIONS:
            known = [f"{EMBEDDED_PREFIX}:{known}" for known in PROPORTIONS]
            raise ValueError(unknown_name_message("data set", name, known))
        if count and (not count.isdigit() or int(count) < 1):
            raise ValueError(f"data set {name!r}: the number of documents must be a positive whole number")
    elif Path(name).exists() or name in HUB_SOURCES:
        return
    elif name == "python-edu":
        raise ValueError(
            "python-edu: the hub holds only the numbers of its files, whose texts lie in the Software Heritage archive. "
            "Fetch them into a folder of JSON lines first, and name that folder"
        )
    elif not _looks_like_hub_name(name):
        known = [*HUB_SOURCES, *(f"{EMBEDDED_PREFIX}:{kind}" for kind in PROPORTIONS)]
        raise ValueError(unknown_name_message("data set", name, known) + "; or a file, a folder, or owner/name")


def default_text_field(name: str) -> str:
    """The field that holds the text of a source."""
    return HUB_SOURCES[name][2] if name in HUB_SOURCES else "text"


def _looks_like_hub_name(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    path_like = name.startswith((".", "/", "~")) or name.endswith(FILE_SUFFIXES)
    return bool(owner and slash and rest) and "/" not in rest and not path_like


def _from_rows(
    rows: Callable[..., Iterator[dict]], columns: tuple[str, ...], cache_dir: str | None, **kwargs: Any
) -> Dataset:
    features = Features({name: Value("string") for name in columns})
    try:
        return Dataset.from_generator(rows, features=features, gen_kwargs=kwargs, cache_dir=cache_dir)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, ValueError):  # what the reader itself says
            raise error.__cause__ from None
        raise
    except ValueError as error:
        if "corresponds to no data" in str(error):  # how `datasets` says that there was no row
            return Dataset.from_dict({name: [] for name in columns}, features=features)
        raise


def _open_embedded(name: str, cache_dir: str | None) -> Dataset:
    _, kind, *count = name.split(":")
    documents = int(count[0]) if count else DEFAULT_EMBEDDED_DOCUMENTS
    return _from_rows(iterate_documents, ("text",), cache_dir, kind=kind, count=documents, seed=0)


def _open_hub(name: str, subset: str | None, cache_dir: str | None) -> Dataset:
    try:
        return load_dataset(name, subset, split="train", cache_dir=cache_dir)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data set {name!r}{f' ({subset})' if subset else ''} could not be read from the hub: {error}\n"
            "Check the name and the connection; without one, pass a local file or folder"
        ) from error


def _open_path(path: Path, cache_dir: str | None) -> Dataset:
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            saved = load_from_disk(str(path))
            return saved["train"] if isinstance(saved, DatasetDict) else saved
        files = sorted(file for file in path.rglob("*") if file.name.endswith(FILE_SUFFIXES))
        if not files:
            raise ValueError(f"folder {path} holds no data: expected a saved data set or {', '.join(FILE_SUFFIXES)}")
        return concatenate_datasets([_open_path(file, cache_dir) for file in files])
    if path.name.endswith(".parquet"):
        try:
            return Dataset.from_parquet(str(path), cache_dir=cache_dir)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is not a readable parquet file: {error}") from error
    if not path.name.endswith(FILE_SUFFIXES):
        raise ValueError(f"{path}: unknown kind of file; expected {', '.join(FILE_SUFFIXES)}")
    stat = path.stat()
    is_json = path.name.removesuffix(".gz").endswith((".jsonl", ".json"))
    rows, columns = (read_lines, ("_row", "_problem")) if is_json else (read_paragraphs, ("text", "_problem"))
    # Size and time are part of the cache's key, so that a changed file is read again.
    return _from_rows(rows, columns, cache_dir, path=str(path.resolve()), version=(stat.st_size, stat.st_mtime_ns))


def _open_binary(path: str) -> Any:
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _iterate_binary_lines(path: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open_binary(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, line
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged after line {number} ({error}); fetch it again") from error


def read_lines(path: str, version: object = None) -> Iterator[dict]:
    """Rows of a JSON lines file. Each is {"_row": its JSON as text, "_problem": why it can't be used or ""}.

    Rows stay text here because lines of one file may have different fields.
    """
    for number, line in _iterate_binary_lines(path):
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8")
            if not isinstance(json.loads(text), dict):
                yield {"_row": "{}", "_problem": f"line {number}: not a JSON object"}
                continue
        except UnicodeDecodeError as error:
            yield {"_row": "{}", "_problem": f"line {number}: invalid UTF-8 at byte {error.start}"}
            continue
        except json.JSONDecodeError as error:
            yield {"_row": "{}", "_problem": f"line {number}: invalid JSON ({error.msg})"}
            continue
        yield {"_row": text, "_problem": ""}


def read_paragraphs(path: str, version: object = None) -> Iterator[dict]:
    """Documents of a text file: paragraphs, joined until they make about 2,000 characters."""
    lines: list[str] = []
    size = 0
    for number, raw in _iterate_binary_lines(path):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield {"text": "", "_problem": f"line {number}: invalid UTF-8 at byte {error.start}"}
            continue
        lines.append(line)
        size += len(line)
        if size > 2000 and not line.strip():
            yield {"text": "".join(lines).strip(), "_problem": ""}
            lines, size = [], 0
    if "".join(lines).strip():
        yield {"text": "".join(lines).strip(), "_problem": ""}


def parse_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row's fields, whatever kind of source it came from."""
    return json.loads(row["_row"]) if "_row" in row else row
