"""Where rows come from: the embedded corpus, local files and folders, a mirror of the hub, the hub."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import load_dataset_builder

from ..utils.suggest import unknown_name_message
from .catalog import CATALOG, PublicDataset, find_by_hub_name
from .corpus import PROPORTIONS
from .readers import FILE_SUFFIXES, Part, Record, embedded_parts, split_file
from .software_heritage import fetch_texts


EMBEDDED_PREFIX = "embedded"
DEFAULT_EMBEDDED_DOCUMENTS = 10_000
# Folder with a mirror of the hub, owner/name/..., which is looked into before the hub.
DATA_ROOT = "SMALL_DOGE_DATA_ROOT"


@dataclass(frozen=True)
class Source:
    """A named source and its parts, in their order on disk.

    Args:
        name: as the user gave it.
        parts: ranges of files.
        entry: of the catalogue, if it is a known data set.
        fetches: texts are fetched by `blob_id` from the Software Heritage archive.
    """

    name: str
    parts: tuple[Part, ...]
    entry: PublicDataset | None = None
    fetches: bool = False

    def read(self, part: Part, position: int | None = None) -> Iterator[Record]:
        """Records of a part."""
        records = part.read(position)
        return fetch_texts(records) if self.fetches else records


def open_source(name: str) -> Source:
    """The parts of a source. Nothing but names, sizes and parquet footers is read yet.

    Args:
        name: `embedded:KIND[:DOCUMENTS]`, a file or folder, a name of the catalogue, or `owner/name[:subset]`.

    Raises:
        ValueError: an unknown name, with the nearest known; an unreadable or empty source.
    """
    check_source_name(name)
    if name.split(":", 1)[0] == EMBEDDED_PREFIX:
        _, kind, *count = name.split(":")
        return Source(name, tuple(embedded_parts(kind, int(count[0]) if count else DEFAULT_EMBEDDED_DOCUMENTS)))
    if Path(name).exists():
        return Source(name, _split(_list_files(Path(name)), name))
    entry = CATALOG.get(name)
    hub_name, subset, split = (
        (entry.hub_name, entry.subset, entry.split) if entry else (*_parse_hub_name(name), "train")
    )
    entry = entry or find_by_hub_name(hub_name, subset)
    texts = python_edu_folder()
    is_index = entry is not None and entry.fields == ("blob_id",)
    if is_index and texts is not None:
        return Source(name, _split(_list_files(texts), name), entry)
    files = find_hub_files(hub_name, subset or (entry.subset if entry else None), entry.split if entry else split)
    return Source(name, _split(files, name), entry, fetches=is_index)


def check_source_name(name: str) -> None:
    """Refuse a name that leads nowhere, before any source of a mix is read.

    Raises:
        ValueError: an unknown name, with the nearest known.
    """
    prefix, _, rest = name.partition(":")
    if prefix == EMBEDDED_PREFIX:
        kind, _, count = rest.partition(":")
        if kind not in PROPORTIONS:
            known = [f"{EMBEDDED_PREFIX}:{known}" for known in PROPORTIONS]
            raise ValueError(unknown_name_message("data set", name, known))
        if count and (not count.isdigit() or int(count) < 1):
            raise ValueError(f"data set {name!r}: the number of documents must be a positive whole number")
    elif not (Path(name).exists() or name in CATALOG or _looks_like_hub_name(name)):
        known = [*CATALOG, *(f"{EMBEDDED_PREFIX}:{kind}" for kind in PROPORTIONS)]
        raise ValueError(unknown_name_message("data set", name, known) + "; or a file, a folder, or owner/name")


def data_root() -> Path | None:
    """The mirror of the hub that `SMALL_DOGE_DATA_ROOT` names."""
    return Path(os.environ[DATA_ROOT]) if os.environ.get(DATA_ROOT) else None


def python_edu_folder(root: Path | None = None) -> Path | None:
    """Where `small-doge data download python-edu` left the texts, if it has finished."""
    root = root or data_root()
    folder = root / CATALOG["python-edu"].hub_name / "python-edu-texts" if root else None
    return folder if folder is not None and (folder / "finished.json").is_file() else None


def find_hub_files(hub_name: str, subset: str | None, split: str) -> list[str]:
    """Paths in the mirror, or addresses on the hub, of a data set's files: what its card says of subsets and splits counts.

    Raises:
        ValueError: neither the mirror nor the hub has it.
    """
    root = data_root()
    mirror = root / hub_name if root is not None else None
    where = str(mirror) if mirror is not None and mirror.is_dir() else hub_name
    try:
        files = load_dataset_builder(where, subset).config.data_files
    except (OSError, ValueError, RuntimeError) as error:
        shown = f"{hub_name}{f' ({subset})' if subset else ''}"
        raise ValueError(
            f"data set {shown} could not be read from {where if mirror and mirror.is_dir() else 'the hub'}: {error}\n"
            f"Check the name and the connection; without one, set {DATA_ROOT} to a folder that holds owner/name/... "
            "as the hub does, or pass a local file or folder"
        ) from error
    if split not in files:
        raise ValueError(f"data set {hub_name!r}: " + unknown_name_message("split", split, map(str, files)))
    return [str(path) for path in files[split]]


def _parse_hub_name(name: str) -> tuple[str, str | None]:
    hub_name, _, subset = name.partition(":")
    return hub_name, subset or None


def _looks_like_hub_name(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    path_like = name.startswith((".", "/", "~")) or name.endswith(FILE_SUFFIXES)
    return bool(owner and slash and rest) and "/" not in rest and not path_like


def _split(files: list[str], name: str) -> tuple[Part, ...]:
    parts = tuple(part for file in files for part in split_file(file))
    if not parts:
        raise ValueError(f"data set {name!r} is empty")
    return parts


def _list_files(path: Path) -> list[str]:
    """The data files of a path: a file, a folder saved by `datasets` (its training split), a folder of files."""
    if path.is_file():
        return [str(path)]
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        path = path / ("train" if "train" in splits else splits[0])
    if (path / "state.json").is_file():
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [str(path / entry["filename"]) for entry in state["_data_files"]]
    files = sorted(str(file) for file in path.rglob("*") if file.name.endswith(FILE_SUFFIXES) and file.is_file())
    files = [file for file in files if not Path(file).name.startswith((".", "README"))]
    if not files:
        raise ValueError(f"folder {path} holds no data: expected a saved data set or {', '.join(FILE_SUFFIXES)}")
    return files
