"""Facts of a model's folder that some protocols show: a digest, the number of weights, their format."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from .model_entry import ModelEntry
from .model_files import stat_files


FORMATS = {"int8": "Q8_0", "int4": "Q4_0", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
# Bits of a weight with its part of the block's scale.
BITS = {"int8": 9, "int4": 5}


def make_digest(entry: ModelEntry) -> str:
    """Return a SHA-256 of the names, sizes and times of a model's files, which changes when the model does."""
    stamp = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stat_files(entry.folder).items()]
    return hashlib.sha256(json.dumps([entry.name, stamp]).encode()).hexdigest()


def count_weights(entry: ModelEntry, facts: dict[str, Any]) -> int:
    """Count the weights of a checkpoint; estimate those of an export by the size of its file."""
    folder = entry.folder
    if facts["path_kind"] == "export":
        return (facts["size_bytes"] or 0) * 8 // BITS.get(facts["quantize"], 32)
    return sum(_count_in_file(path) for path in folder.glob("*.safetensors")) if folder.is_dir() else 0


def name_format(facts: dict[str, Any], config: dict[str, Any]) -> str:
    """Name the format of the weights as Ollama does."""
    if facts["path_kind"] == "export":
        return FORMATS.get(facts["quantize"], "F32")
    return FORMATS.get(config.get("dtype") or config.get("torch_dtype") or "float32", "F32")


def show_count(number: int) -> str:
    """Write a number of weights as Ollama does: 1.6M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _count_in_file(path: Path) -> int:
    """Count the weights of a safetensors file by its header."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 2**26)))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no such file: it counts nothing
        return 0
