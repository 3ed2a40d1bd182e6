"""Where rows come from: the embedded corpus, local files and folders, a mirror of the hub, the hub."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from datasets import load_dataset_builder
from datasets.data_files import DataFilesDict, get_data_patterns

from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.paths import find_near_names, looks_like_path
from ..utils.suggest import unknown_name_message
from .catalog import CATALOG, find_by_hub_name
from .choices import DATA_ROOT
from .corpus import KINDS
from .readers import CONNECTION_ERRORS, FILE_SUFFIXES, TEXT, FileRange, Record, embedded_ranges, split_file
from .software_heritage import fetch_texts


logger = get_logger(__name__)

EMBEDDED_PREFIX = "embedded"
# Files that lie beside data and are none: settings, and notes by the beginning of their names.
SETTINGS = {
    "dataset_infos",
    "dataset_info",
    "dataset_dict",
    "state",
    "manifest",
    "metadata",
    "report",
    "finished",
    "config",
}
NOTES = re.compile(
    r"(readme|licen[cs]e|copying|notice|notes|changelog|changes|citation|contributing|authors|todo)", re.I
)
SHOWN = 5
# Folders whose left out files were told.
_told: set[str] = set()
DEFAULT_EMBEDDED_DOCUMENTS = 10_000


@dataclass(frozen=True)
class Source:
    """A named source and its ranges, in their order on disk.

    Args:
        name: as the user gave it.
        ranges: ranges of files.
        fetches: texts are fetched by `blob_id` from the Software Heritage archive.
    """

    name: str
    ranges: tuple[FileRange, ...]
    fetches: bool = False

    def read(self, file_range: FileRange, position: int | None = None) -> Iterator[Record]:
        """Yield the records of a range."""
        records = file_range.read(position)
        return fetch_texts(records) if self.fetches else records


def open_source(name: str, all_splits: bool = False) -> Source:
    """Open a source as ranges of files. Nothing but names, sizes and parquet footers is read yet.

    Args:
        name: `embedded:KIND[:DOCUMENTS]`, a file or folder, a name of the catalogue, or `owner/name[:subset]`.
        all_splits: of a folder, read every split rather than that for training: for texts to measure on or to keep out.

    Raises:
        ValueError: an unknown name, with the nearest known; an unreadable or empty source.
    """
    check_source_name(name)
    if name.split(":", 1)[0] == EMBEDDED_PREFIX:
        _, kind, *count = name.split(":")
        return Source(name, tuple(embedded_ranges(kind, int(count[0]) if count else DEFAULT_EMBEDDED_DOCUMENTS)))
    if Path(name).exists():
        return Source(name, _split(_list_files(Path(name), None if all_splits else "train"), name))
    entry = CATALOG.get(name)
    hub_name, subset, split = (
        (entry.hub_name, entry.subset, entry.split) if entry else (*parse_hub_name(name), "train")
    )
    entry = entry or find_by_hub_name(hub_name, subset)
    texts = python_edu_folder()
    is_index = entry is not None and entry.fields == ("blob_id",)
    if is_index and texts is not None:
        return Source(name, _split(sorted(map(str, texts.glob("*.parquet"))), name))
    files = find_hub_files(hub_name, subset or (entry.subset if entry else None), entry.split if entry else split)
    return Source(name, _split(files, name), fetches=is_index)


def check_source_name(name: str) -> None:
    """Refuse a name that leads nowhere, before any source of a mix is read.

    Raises:
        ValueError: an unknown name, with the nearest known.
    """
    prefix, _, rest = name.partition(":")
    if prefix == EMBEDDED_PREFIX:
        kind, _, count = rest.partition(":")
        if kind not in KINDS:
            known = [f"{EMBEDDED_PREFIX}:{known}" for known in KINDS]
            raise UserError(unknown_name_message("data set", name, known))
        if count and (not count.isdigit() or int(count) < 1):
            raise UserError(f"data set {name!r}: the number of documents must be a positive whole number")
    elif Path(name).exists() or name in CATALOG:
        return
    elif looks_like_path(name) or name.lower().endswith(FILE_SUFFIXES):
        raise UserError(f"there is no file or folder {name}{find_near_names(Path(name))}")
    elif not _looks_like_hub_name(name):
        known = [*CATALOG, *(f"{EMBEDDED_PREFIX}:{kind}" for kind in KINDS)]
        raise UserError(unknown_name_message("data set", name, known) + "; or a file, a folder, or owner/name")


def data_root() -> Path | None:
    """Return the mirror of the hub that `SMALL_DOGE_DATA_ROOT` names."""
    return Path(os.environ[DATA_ROOT]) if os.environ.get(DATA_ROOT) else None


def python_edu_folder(root: Path | None = None) -> Path | None:
    """Find where `small-doge data download python-edu` left the texts, if it has finished."""
    root = root or data_root()
    folder = root / CATALOG["python-edu"].hub_name / "python-edu-texts" if root else None
    return folder if folder is not None and (folder / "finished.json").is_file() else None


def find_hub_files(hub_name: str, subset: str | None, split: str, mirror: bool = True) -> list[str]:
    """Find paths in the mirror, or addresses on the hub, of a data set's files: what its card says of subsets and splits counts.

    Args:
        hub_name: `owner/name`.
        subset: or None for the default one.
        split: of the data.
        mirror: look into the mirror first.

    Raises:
        ValueError: neither the mirror nor the hub has it.
    """
    root = data_root()
    if mirror and root is not None and (root / hub_name).is_dir():
        return _find_mirrored(root / hub_name, subset, split)
    try:
        files = load_dataset_builder(hub_name, subset).config.data_files
    except (*CONNECTION_ERRORS, ValueError, RuntimeError) as error:
        shown = f"{hub_name}{f' ({subset})' if subset else ''}"
        raise UserError(
            f"data set {shown} could not be read from the hub: {error}\n"
            f"Check the name and the connection; without one, set {DATA_ROOT} to a folder that holds owner/name/... "
            "as the hub does, or pass a local file or folder"
        ) from error
    if split not in files:
        raise UserError(f"data set {hub_name!r}: " + unknown_name_message("split", split, map(str, files)))
    return [str(path) for path in files[split]]


def _find_mirrored(folder: Path, subset: str | None, split: str) -> list[str]:
    """Find the files of a mirror, which need not hold every subset: by the card, or without one by the names of folders and files."""
    configs = _read_card(folder)
    if configs:
        default = next((name for name, config in configs.items() if config.get("default")), next(iter(configs)))
        name = subset or ("default" if "default" in configs else default)
        if name not in configs:
            raise UserError(f"{folder}: " + unknown_name_message("subset", name, configs))
        patterns = _patterns_of(configs[name].get("data_files", "**/*"), split)
        files = sorted({str(path) for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    else:
        files = _list_files(folder / subset if subset and (folder / subset).is_dir() else folder, split)
    if not files:
        raise UserError(
            f"{folder} holds no files of {subset or 'the data set'}, split {split}. Fetch them with: small-doge data "
            f"download {'/'.join(folder.parts[-2:])}{f':{subset}' if subset else ''}"
        )
    return files


def _read_card(folder: Path) -> dict[str, dict[str, Any]]:
    card = folder / "README.md"
    found = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.S) if card.is_file() else None
    configs = (yaml.safe_load(found[1]) or {}).get("configs") if found else None
    return {config["config_name"]: config for config in configs or []}


def _patterns_of(data_files: Any, split: str) -> list[str]:
    """Return the patterns of a split in any of the forms that cards use."""
    if isinstance(data_files, str):
        return [data_files]
    if isinstance(data_files, list) and all(isinstance(pattern, str) for pattern in data_files):
        return data_files
    entries = data_files if isinstance(data_files, list) else [{"split": k, "path": v} for k, v in data_files.items()]
    found = [entry["path"] for entry in entries if entry["split"] == split]
    if not found:
        raise UserError(unknown_name_message("split", split, [entry["split"] for entry in entries]))
    return [pattern for path in found for pattern in ([path] if isinstance(path, str) else path)]


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """Split `owner/name[:subset]` into its parts."""
    hub_name, _, subset = name.partition(":")
    return hub_name, subset or None


def _looks_like_hub_name(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest


def _split(files: list[str], name: str) -> tuple[FileRange, ...]:
    ranges = tuple(file_range for file in files for file_range in split_file(file))
    if not ranges:
        raise UserError(f"data set {name!r} is empty")
    return ranges


def _list_files(path: Path, split: str | None) -> list[str]:
    """List the data files of a path and a split, all of them if None: a file, a folder saved by `datasets`, a cleaned one, any."""
    if path.is_file():
        return [str(path)]
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if split is None:
            return [file for name in splits for file in _list_files(path / name, None)]
        if "train" not in splits:
            _warn_of_other_splits(path, [path / splits[0]], "train")
        path = path / ("train" if "train" in splits else splits[0])
    if (path / "state.json").is_file():
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [str(path / entry["filename"]) for entry in state["_data_files"]]
    if (path / "cleaning.json").is_file():  # what `data clean` kept, without what it dropped
        return sorted(str(file) for file in path.glob("clean-*.jsonl.gz"))
    found = [file for file in path.rglob("*") if file.name.lower().endswith(FILE_SUFFIXES) and file.is_file()]
    visible = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    files = _choose_split(path, _drop_notes(visible), split)
    if not files:
        raise UserError(f"folder {path} holds no data: expected a saved data set or {', '.join(FILE_SUFFIXES)}")
    left_out = sorted(str(file.relative_to(path)) for file in set(visible) - set(files))
    if left_out and str(path) not in _told:
        _told.add(str(path))
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        logger.warning(
            "%s: %d files are read; not read, as notes or other splits: %s%s",
            path,
            len(files),
            ", ".join(left_out[:SHOWN]),
            more,
        )
    return sorted(map(str, files))


def _drop_notes(files: list[Path]) -> list[Path]:
    """Drop licences, cards and settings; and prose that lies beside files of rows."""
    kept = [
        file
        for file in files
        if not (file.suffix.lower() == ".json" and file.stem.lower() in SETTINGS)
        and not (file.name.lower().endswith(TEXT) and NOTES.match(file.name))
    ]
    rows = [file for file in kept if not file.name.lower().endswith(TEXT)]
    return rows or kept


def _choose_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """Choose the files of a split by the hub's conventions for names of files and folders; all where no name tells."""
    if split is None:
        return files
    try:
        patterns = get_data_patterns(str(folder.resolve()))
    except (OSError, ValueError):  # datasets finds nothing
        return files
    splits = {
        str(name): {Path(found).resolve() for found in paths}
        for name, paths in DataFilesDict.from_patterns(patterns, base_path=str(folder.resolve())).items()
    }
    if split in splits:
        return [file for file in files if file.resolve() in splits[split]]
    others = set().union(*splits.values())
    unnamed = [file for file in files if file.resolve() not in others]
    if not unnamed:
        _warn_of_other_splits(folder, files, split)
    return unnamed or files


def _warn_of_other_splits(folder: Path, files: list[Path], split: str) -> None:
    """Tell once that a folder lacks a split, and which files of other splits are read in its place."""
    told = f"{folder} {split}"
    if files and told not in _told:
        _told.add(told)
        names = ", ".join(sorted(str(file.relative_to(folder)) for file in files)[:SHOWN])
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        logger.warning("%s holds no split %s; read instead: %s%s", folder, split, names, more)
