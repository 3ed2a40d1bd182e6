"""Models in folders: where they are, and what their files tell before they are loaded."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..inference.export_cache import PATTERNS
from ..inference.loading import RUNTIME, is_exported
from ..utils.hub import find_cached_folder
from ..utils.paths import looks_like_path


CACHE_BYTES = 64 * 2**20
WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
# What a model is made of: cards, reports and records beside it are no part of it.
MODEL_FILES = (*PATTERNS, *WEIGHTS, RUNTIME)


def find_folder(source: str) -> Path:
    """Find the folder of a model: a name on the hub has one in the hub's cache, once it was downloaded.

    Returns:
        The folder, which is not there if the model is not.
    """
    folder = Path(source)
    if folder.is_dir() or looks_like_path(source):
        return folder
    return find_cached_folder(source) or folder


def describe_files(folder: Path) -> dict[str, Any]:
    """Describe a model for the page; what its files do not tell is None."""
    settings = read_json(folder / RUNTIME) or {}
    config = read_json(folder / "config.json") or {}
    return {
        "can_chat": has_template(folder),
        "max_length": settings.get("max_length"),
        "trained_length": config.get("max_position_embeddings"),
        "keep_window_size": settings.get("keep_window_size", config.get("keep_window_size")),
        "num_layers": settings.get("num_hidden_layers", config.get("num_hidden_layers")),
        "num_kv_heads": settings.get("num_key_value_heads", config.get("num_key_value_heads")),
        "vocab_size": settings.get("vocab_size", config.get("vocab_size")),
        "quantize": settings.get("quantize"),
        "path_kind": "export" if is_exported(folder) else "checkpoint",
        "size_bytes": count_weights(folder) or None,
    }


def find_models(folder: Path) -> Iterable[Path]:
    """List the exported models and checkpoints in a folder and in its folders: no hidden ones, and no links out of it."""
    inside = folder.resolve()
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or path.name.startswith("checkpoint-") or not path.resolve().is_relative_to(inside):
                continue
            if path.is_dir() and is_model(path):
                yield path


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds an exported Doge model or a checkpoint of one."""
    if is_exported(folder):
        return True
    kind = (read_json(folder / "config.json") or {}).get("model_type")
    return kind in ("doge", "doge_moe") and any(folder.glob("*.safetensors"))


def estimate_bytes(folder: Path) -> int:
    """Estimate the bytes that a model takes when it is loaded: its weights, twice while they are read, and its caches.

    A model that is not on this machine yet is taken for one without weights.
    """
    return 2 * count_weights(folder) + CACHE_BYTES


def count_weights(folder: Path) -> int:
    """Count the bytes of a folder's weights."""
    total = 0
    for path in (path for pattern in WEIGHTS for path in folder.glob(pattern)):
        try:
            total += path.stat().st_size
        except OSError:  # it was removed just now
            continue
    return total


def stat_files(folder: Path) -> dict[str, os.stat_result]:
    """Return the sizes and times of the files that a folder's model is made of, by their names, in order."""
    stats = {}
    for path in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        with contextlib.suppress(OSError):  # it was removed just now
            stats[path.name] = path.stat()
    return stats


def find_newest(folder: Path) -> int:
    """Return when the weights, settings or tokenizer of a folder were last changed, in ns since 1970; 0 if it has none."""
    return max((stat.st_mtime_ns for stat in stat_files(folder).values()), default=0)


def has_template(folder: Path) -> bool:
    """Tell whether a model has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    return bool((read_json(folder / "tokenizer_config.json") or {}).get("chat_template"))


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
