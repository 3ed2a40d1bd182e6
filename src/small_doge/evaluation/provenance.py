"""Of which model and which code a figure is."""

import hashlib
import subprocess
from pathlib import Path

from ..utils.hub import find_cached_folder


# Weights in any form that is read, settings, tokenizers of any kind, chat templates, and code that comes with a model.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "runtime.json",
    "*.safetensors",
    "*.index.json",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "*.onnx*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "*.py",
)


def hash_model(model: str) -> str:
    """Hash what decides a model's answers: weights, configuration, tokenizer and template.

    Of a hub model, these are the files in the hub's cache, where opening it has put them; and its name, which is all
    there is before that.
    """
    folder = Path(model) if Path(model).is_dir() else find_cached_folder(model)
    digest = hashlib.sha256(b"" if Path(model).is_dir() else model.encode())
    found = {path for pattern in MODEL_FILES for path in folder.glob(pattern)} if folder else set()
    for path in sorted(path for path in found if path.is_file()):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def find_commit() -> str | None:
    """Return the commit of the source tree that this code runs from; None where it was installed from a wheel.

    A wheel may lie within a repository of its user, whose commit says nothing of this code.
    """
    file = Path(__file__)
    try:
        for words in (["ls-files", "--error-unmatch", file.name], ["rev-parse", "HEAD"]):
            found = subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
