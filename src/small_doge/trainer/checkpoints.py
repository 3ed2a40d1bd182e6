"""Whole checkpoints: each gets a manifest when it is complete, and only those with a true manifest count."""

import json
import re
import shutil
import zlib
from pathlib import Path

from ..utils.files import write_json
from ..utils.logging import get_logger


logger = get_logger(__name__)

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
DATA_POSITION = "data_position.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def write_manifest(folder: str | Path) -> None:
    """List the files of a finished checkpoint with their sizes and checksums; written last."""
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    write_json(
        folder / MANIFEST,
        {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "crc32": _checksum(p)} for p in files},
    )


def find_damage(folder: str | Path) -> str | None:
    """Why a checkpoint can't be used, or None."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError) as error:
        return f"its manifest can't be read ({error})"
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}"
        if _checksum(path) != expected["crc32"]:
            return f"{name} is damaged (checksum)"
    return None


def read_step(folder: str | Path) -> int:
    """The step at which a checkpoint was written."""
    return int(_NAME.match(Path(folder).name)[1])


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Checkpoint folders by step, the last first."""
    folder = Path(output_dir)
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if p.is_dir() and (m := _NAME.match(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def find_last_whole(output_dir: str | Path) -> Path | None:
    """The last checkpoint that is whole; says which ones are passed over and why."""
    for path in list_checkpoints(output_dir):
        damage = find_damage(path)
        if damage is None:
            return path
        logger.warning("passing over %s: %s", path, damage)
    return None


def rotate(output_dir: str | Path, limit: int | None) -> None:
    """Delete the oldest checkpoints beyond `limit`; called after the newest is whole."""
    if limit is not None and limit > 0:
        for path in list_checkpoints(output_dir)[limit:]:
            shutil.rmtree(path, ignore_errors=True)
