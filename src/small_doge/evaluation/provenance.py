"""Of which model and which code a figure is."""

import hashlib
import subprocess
from pathlib import Path


MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "runtime.json",
    "tokenizer*.json",
    "*.jinja",
    "*.safetensors",
    "*.onnx*",
)


def hash_model(model: str) -> str:
    """Hash what decides a model's answers: weights, configuration, tokenizer and template; a hub model's name."""
    digest = hashlib.sha256(b"" if Path(model).is_dir() else model.encode())
    for path in sorted({path for pattern in MODEL_FILES for path in Path(model).glob(pattern)}):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def find_commit() -> str | None:
    """Return the commit of the source tree that this code runs from; None where it was installed from a wheel."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
