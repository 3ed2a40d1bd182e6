"""Whole checkpoints: each gets a manifest when it is complete, and only those with a true manifest count."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..optim import is_muon_parameter
from ..utils.files import find_damage
from ..utils.logging import get_logger
from ..utils.paths import FINISHED
from .arguments import MUON
from .averaging import RAW


logger = get_logger(__name__)

RECIPE = "recipe.yaml"
# What the machine made of the recipe, which holds what was asked for.
MACHINE = "machine.json"
DATA_POSITION = "data_position.json"
LOG_NAME = "training_log.jsonl"
# Folder of the adapter alone, beside the weights that it is merged into.
ADAPTER = "adapter"
BYTES_OF_WEIGHT = 4  # in float32
# Checkpoints that are planned for where no limit is set.
UNLIMITED_CHECKPOINTS = 10
_NAME = re.compile(r"^checkpoint-(\d+)$")


def read_step(folder: str | Path) -> int:
    """Return the step at which a checkpoint was written."""
    return int(_NAME.match(Path(folder).name)[1])


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """List checkpoint folders by step, the last first."""
    folder = Path(output_dir)
    found = [(int(m[1]), p) for p in folder.glob("checkpoint-*") if p.is_dir() and (m := _NAME.match(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def find_last_whole(output_dir: str | Path) -> Path | None:
    """Find the last checkpoint that is whole and whose weights are finite; say which ones are passed over and why."""
    for path in list_checkpoints(output_dir):
        damage = find_damage(path) or find_bad_weights(path)
        if damage is None:
            return path
        logger.warning("passing over %s: %s", path, damage)
    return None


def find_bad_weights(folder: str | Path) -> str | None:
    """Find the first weight of a checkpoint that is not finite, or None."""
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                if not bool(weights.get_tensor(name).isfinite().all()):
                    return f"{name} in {file.name} is not finite"
    return None


def rotate(output_dir: str | Path, limit: int | None, kept: Iterable[Path] = ()) -> None:
    """Delete the oldest checkpoints beyond `limit`, but none of `kept`; called after the newest is whole."""
    spared = {path.resolve() for path in kept}
    if limit is not None and limit > 0:
        for path in list_checkpoints(output_dir)[limit:]:
            if path.resolve() not in spared:
                shutil.rmtree(path, ignore_errors=True)


def discard_run(output_dir: str | Path) -> None:
    """Delete what lets a run go on or count as finished, and what another run may not write over. All other files stay."""
    folder = Path(output_dir)
    for path in (*list_checkpoints(folder), folder / ADAPTER, folder / RAW):
        shutil.rmtree(path, ignore_errors=True)
    for name in (FINISHED, LOG_NAME):
        (folder / name).unlink(missing_ok=True)


def estimate_checkpoint(model: torch.nn.Module, args: Any) -> int:
    """Estimate the bytes of a checkpoint in float32: of each trained weight, itself and what is kept beside it.

    Args:
        model: the model, or an adapter around it, whose frozen weights no checkpoint holds.
        args: training arguments; AdamW keeps two moments of a weight, Muon one, and `weight_average` an average.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    copies = 3 if args.weight_average == "none" else 4
    values = copies * sum(weight.numel() for _, weight in trained)
    if args.optim == MUON:
        values -= sum(weight.numel() for name, weight in trained if is_muon_parameter(name, weight))
    return BYTES_OF_WEIGHT * values


def estimate_disk(model: torch.nn.Module, args: Any) -> int:
    """Estimate the bytes that a run writes: its checkpoints, of which one is being written, and the finished model.

    Args:
        model: the model, or an adapter around it.
        args: training arguments; `save_strategy`, `save_total_limit`, `keep_stable_checkpoint` and `weight_average` count.
    """
    kept = 0 if args.save_strategy == "no" else (args.save_total_limit or UNLIMITED_CHECKPOINTS) + 1
    kept += args.keep_stable_checkpoint
    finished = 1 if args.weight_average == "none" else 2  # with the raw weights beside the average
    return kept * estimate_checkpoint(model, args) + finished * BYTES_OF_WEIGHT * sum(
        weight.numel() for weight in model.parameters()
    )
