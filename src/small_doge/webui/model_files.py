"""What the files of a model tell about it, before it is loaded."""

import json
from pathlib import Path
from typing import Any

from ..inference.loading import RUNTIME, is_exported


WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")


def describe_files(source: str | Path) -> dict[str, Any]:
    """Describe a model for the page; what its files do not tell is None."""
    folder = Path(source)
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


def count_weights(folder: Path) -> int:
    """Count the bytes of a folder's weights."""
    total = 0
    for path in (path for pattern in WEIGHTS for path in folder.glob(pattern)):
        try:
            total += path.stat().st_size
        except OSError:  # it was removed just now
            continue
    return total


def find_newest(folder: Path) -> int:
    """Return when the weights, settings or tokenizer of a folder were last changed, in ns since 1970; 0 if it has none."""
    newest = 0
    for pattern in (*WEIGHTS, "*.json", "*.jinja"):
        for path in folder.glob(pattern):
            try:
                newest = max(newest, path.stat().st_mtime_ns)
            except OSError:  # it was removed just now
                continue
    return newest


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
