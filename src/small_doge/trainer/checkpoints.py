"""Whole checkpoints: each gets a manifest when it is complete, and only those with a true manifest count."""

import re
import shutil
from pathlib import Path

from ..utils.files import find_damage
from ..utils.logging import get_logger
from ..utils.paths import FINISHED


logger = get_logger(__name__)

RECIPE = "recipe.yaml"
DATA_POSITION = "data_position.json"
LOG_NAME = "training_log.jsonl"
_NAME = re.compile(r"^checkpoint-(\d+)$")


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


def discard_run(output_dir: str | Path) -> None:
    """Delete what lets a run go on or count as finished: checkpoints, log and mark. All other files stay."""
    folder = Path(output_dir)
    for path in list_checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)
    for name in (FINISHED, LOG_NAME):
        (folder / name).unlink(missing_ok=True)
