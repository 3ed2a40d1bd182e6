"""Files that are written whole or not at all."""

import json
import math
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


MANIFEST = "manifest.json"
# The card of a folder, which people edit; nothing is read from it.
CARD = "README.md"
# What `whole_folder` wrote, by which command.
RECORD = ".small-doge.json"
OVERWRITE_HELP = "Write into a folder that holds other files; only files with the same names are replaced."


def write_text(path: str | Path, text: str) -> None:
    """Write text to a file, as a whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, indented; numbers that are not finite, which JSON does not have, become null."""
    write_text(path, json.dumps(replace_non_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def replace_non_finite(content: Any) -> Any:
    """Return content for JSON, with null in place of numbers that it does not have."""
    if isinstance(content, dict):
        return {name: replace_non_finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [replace_non_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def check_output_path(path: str | Path) -> None:
    """Refuse a path at which no folder can be written.

    Raises:
        UserError: a file stands there, or on the way; or the nearest folder that exists can't be written to.
    """
    path = Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise UserError(f"output {path} is a file; name a folder")
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise UserError(f"output {path}: {nearest} is a file; name a folder")
    probe = nearest / f".{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise UserError(f"output {path}: {nearest} can't be written to ({error.strerror}); name another") from error


def check_output(
    path: str | Path, made_by: str, overwrite: bool = False, sources: Iterable[str | Path] = ()
) -> list[Path]:
    """Refuse, before any work, an output folder that `whole_folder` must not replace.

    Args:
        path: of the folder.
        made_by: the command that writes it. What it wrote before, and nobody changed, may be replaced.
        overwrite: replace it even so; files that the command did not write are kept.
        sources: what the command reads; local paths among them must not lie in the folder.

    Returns:
        Files in the folder that the command did not write, relative to it.

    Raises:
        UserError: a folder that can't be written or replaced, with the remedy.
    """
    path = Path(path)
    check_output_path(path)
    if path.is_symlink():
        raise UserError(f"output {path} is a link; name the folder itself: {path.resolve()}")
    full = path.resolve()
    if full in (Path.cwd(), *Path.cwd().parents, Path.home()):
        raise UserError(f"output {path} is {full}, where you are working; name a new folder")
    for source in map(Path, sources):
        if source.exists() and (source.resolve() == full or full in source.resolve().parents):
            raise UserError(f"output {path} holds {source}, which is read to make it; name another folder")
    foreign = _find_foreign(path, made_by)
    if foreign and not overwrite:
        shown = ", ".join(map(str, foreign[:3])) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise UserError(
            f"output {path} holds what `{made_by}` did not write, or what was changed since: {shown}. Name another "
            "folder, or add --overwrite, which replaces files of the same names and keeps all others"
        )
    return foreign


def read_json_lines(path: str | Path) -> Iterator[Any]:
    """Yield what each line holds. Only newlines part lines: text may hold other separators, such as U+2028.

    Raises:
        UserError: a line is not JSON.
    """
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path} line {number} is not JSON ({error})") from error


@contextmanager
def whole_folder(path: str | Path, made_by: str, overwrite: bool = False) -> Iterator[Path]:
    """Give a new folder that takes its name only when the block ends well.

    It replaces a folder that the same command wrote; see `check_output` for `made_by`, `overwrite` and the errors.
    """
    path = Path(path)
    check_output(path, made_by, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = uuid.uuid4().hex[:8]
    temporary, old = path.with_name(f".{path.name}.{suffix}"), path.with_name(f".{path.name}.{suffix}.old")
    temporary.mkdir()
    try:
        yield temporary
        share_weights(temporary)
        files = {str(file.relative_to(temporary)): _stamp(file) for file in _list_files(temporary)}
        write_json(temporary / RECORD, {"made_by": made_by, "files": files})
        for name in check_output(path, made_by, overwrite):
            _keep(path / name, temporary / name)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def record_files(folder: str | Path, *names: str) -> None:
    """Count further files of a folder, which we wrote too, as ours; nothing where `whole_folder` wrote none."""
    record = Path(folder) / RECORD
    if record.is_file():
        content = json.loads(record.read_text(encoding="utf-8"))
        content["files"].update({name: _stamp(Path(folder) / name) for name in names})
        write_json(record, content)


def is_own_file(folder: str | Path, name: str) -> bool:
    """Tell whether `whole_folder` wrote a file, and nobody changed it since."""
    record, path = Path(folder) / RECORD, Path(folder) / name
    if not record.is_file() or not path.is_file():
        return False
    return json.loads(record.read_text(encoding="utf-8"))["files"].get(name) == _stamp(path)


def _find_foreign(path: Path, made_by: str) -> list[Path]:
    """Find files of a folder, relative to it, that differ from what `made_by` recorded when it wrote the folder."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        files = record["files"] if record["made_by"] == made_by else {}
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    found = ((file, file.relative_to(path)) for file in _list_files(path))
    return [name for file, name in found if str(name) != RECORD and files.get(str(name)) != _stamp(file)]


def _list_files(folder: Path) -> list[Path]:
    """List all that is not a folder, and folders that are empty or links."""
    return sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir() or not any(p.iterdir()))


def _stamp(path: Path) -> list[int]:
    """Return bytes and time of the last change, which tell an edited file without reading it."""
    facts = path.lstat()
    return [facts.st_size, facts.st_mtime_ns]


def _keep(source: Path, target: Path) -> None:
    """Bring a file of the user into the new folder, unless one of its name was made there."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        return
    shutil.copy2(source, target, follow_symlinks=False)


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def share_weights(folder: Path) -> None:
    """Let everyone read the weights of a folder who may read its JSON files: safetensors keeps them to their owner."""
    settings = next(folder.glob("*.json"), None)
    if settings is not None:
        for file in folder.glob("*.safetensors"):
            shutil.copymode(settings, file)


def write_manifest(folder: str | Path) -> None:
    """List the files of a finished folder with their sizes and checksums; written last."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (MANIFEST, CARD))
    write_json(
        folder / MANIFEST,
        {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "crc32": _checksum(p)} for p in files},
    )


def find_damage(folder: str | Path) -> str | None:
    """Say why a folder with a manifest can't be used, or None."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError) as error:
        return f"its manifest can't be read ({error})"
    for name, expected in manifest.items():
        path = folder / name
        if path.name == CARD:
            continue
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
        if _checksum(path) != expected["crc32"]:
            return f"{name} is damaged (checksum)"
    return None
