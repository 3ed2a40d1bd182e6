"""Exports of checkpoints that are made once and kept beside them, so that whatever serves has the fast engine."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.files import find_damage, write_json
from ..utils.hub import find_hub_file
from ..utils.logging import get_logger
from ..utils.paths import looks_like_path
from .engine import Engine
from .loading import FORMAT_VERSION, is_exported, open_engine, read_runtime


try:
    import fcntl
except ImportError:  # a platform without: two processes may then export at once, and one of them fails
    fcntl = None  # type: ignore[assignment]


logger = get_logger(__name__)

CACHE = ".small-doge"
# What an export is made of.
PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
    "vocab*",
    "merges.txt",
)


def open_fast_engine(
    name: str | Path,
    num_slots: int = 8,
    threads: int | None = None,
    quantize: str = "none",
    tell: Callable[[str], None] = logger.info,
) -> Engine:
    """Open a model on ONNX Runtime; a checkpoint is exported first, unless that was done before.

    A checkpoint that can't be exported (the message says why) is opened on PyTorch.

    Args:
        name: an exported folder, a checkpoint folder, or a hub name.
        num_slots: requests that are computed together.
        threads: processor threads; None chooses them.
        quantize: format of the weights of a cached export: none, int8 or int4.
        tell: is told what is done, and where it lies.

    Raises:
        UserError: there is no such model, or it can't be used.
    """
    if is_exported(name):
        own = read_runtime(Path(name)).get("quantize") or "none" if quantize != "none" else quantize
        if own != quantize:
            tell(f"{name} is an export already, with --quantize {own}; --quantize {quantize} has no effect on it")
        return open_engine(name, num_slots, threads)
    try:
        folder = export_once(name, quantize, tell)
    except NotExportableError as reason:
        tell(f"{name} runs on PyTorch, which is slower: {reason}")
        return open_engine(name, num_slots, threads)
    return open_engine(folder, num_slots, threads)


class NotExportableError(UserError):
    """There is no graph for this model, or no package to write one."""


def export_once(name: str | Path, quantize: str, tell: Callable[[str], None]) -> Path:
    """Return the folder of a checkpoint's export; it is made if there is none, or if the checkpoint has changed.

    Raises:
        NotExportableError: the model has no graph.
        UserError: there is no such model, or the export failed a check.
    """
    source = _find_source(name)
    if source is None:  # of the hub, and not yet downloaded
        from .checkpoints import open_checkpoint

        open_checkpoint(name)
        source = _find_source(name)
    if source is None:
        raise UserError(f"{name} is no folder, and the hub's cache does not hold it")
    title = source.resolve().name if Path(name).is_dir() else Path(name).name
    folder = _choose_parent(source, name) / f"{title}-{'float32' if quantize == 'none' else quantize}"
    if _is_current(folder, source, quantize):
        return folder
    with _lock(folder, tell):
        if not _is_current(folder, source, quantize):  # another process may have made it meanwhile
            _export(name, source, folder, quantize, title, tell)
    return folder


def _export(
    name: str | Path, source: Path, folder: Path, quantize: str, title: str, tell: Callable[[str], None]
) -> None:
    """Write the export, and then the record of what it was made of."""
    from .checkpoints import open_checkpoint  # which imports PyTorch: opening an export that is there does without
    from .export import check_exportable, export_onnx

    _remove_leftovers(folder)
    stamp = _stamp(source, quantize)  # before the checkpoint is read: a change during the export makes another
    model, tokenizer = open_checkpoint(name)
    try:
        check_exportable(model.config, quantize)
    except UserError as error:
        raise NotExportableError(str(error)) from error
    tell(f"Exporting {name} once, for the fast engine, to {folder}; this can take a minute")
    try:
        export_onnx(model, tokenizer, folder, quantize, name=title, overwrite=True)
        write_json(_find_record(folder), stamp)
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and "(os error " not in str(error):  # which tokenizers raise
            raise
        _remove_leftovers(folder)
        raise NotExportableError(f"its export can't be kept in {folder.parent} ({error})") from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote the export, or its record."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_current(folder: Path, source: Path, quantize: str) -> bool:
    """Tell whether an export is whole, and made of what the checkpoint is now."""
    if not is_exported(folder) or _read(_find_record(folder)) != _stamp(source, quantize):
        return False
    return find_damage(folder) is None


def _find_record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


@contextmanager
def _lock(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Keep other processes from writing the same export, or wait for them; the lock of a killed one goes with it.

    Raises:
        NotExportableError: nothing can be written there.
    """
    path = folder.with_name(f"{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise NotExportableError(f"its export can't be kept in {path.parent} ({error.strerror})") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"Waiting for another process that exports to {folder}")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_source(name: str | Path) -> Path | None:
    """Find the folder of a checkpoint, in the hub's cache for a hub name."""
    if Path(name).is_dir():
        return Path(name)
    if looks_like_path(str(name)):  # which is not there
        return None
    config = find_hub_file(str(name), "config.json")
    return config.parent if config else None


def _choose_parent(source: Path, name: str | Path) -> Path:
    """Choose where exports lie: beside the checkpoint, or in the user's cache for a hub name or a read-only folder."""
    beside = source.resolve().parent
    kept = beside / CACHE
    if Path(name).is_dir() and os.access(kept if kept.exists() else beside, os.W_OK):
        return kept
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "small-doge" / "exported" / str(source.resolve()).strip("/").replace("/", "--")


def _stamp(source: Path, quantize: str) -> dict[str, Any]:
    """Describe what an export is made of, so that a change is noticed."""
    files = sorted({path for pattern in PATTERNS for path in source.glob(pattern)})
    sizes = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    return {"format": FORMAT_VERSION, "version": version("small-doge"), "quantize": quantize, "files": sizes}


def _read(path: Path) -> Any:
    """Read a JSON file; None if there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
