"""Folders of models: which files are torn, and the tokenizer in them."""

import json
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import MANIFEST, find_damage
from .paths import find_near_names, looks_like_path


SHOWN = 8
LFS_POINTER = b"version https://git-lfs"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
# Names of the class that a tokenizer.json alone makes whole, in versions 5 and 4 of transformers.
PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")


def load_tokenizer(path: str | Path, setting: str | None = None) -> Any:
    """Load the tokenizer of a local folder or hub name.

    Args:
        path: of the folder, or the name.
        setting: that named it and needs it; None allows that there is none.

    Returns:
        The tokenizer, or None where there is none.

    Raises:
        UserError: its files are torn, or there is none although `setting` needs one.
    """
    check_model_folder(path, TOKENIZER_FILES)
    folder = Path(path)
    is_there = not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES)
    reason = "the folder has none"
    if is_there:
        try:
            return _choose_tokenizer_class(folder).from_pretrained(str(path))
        except Exception as error:  # of many kinds: the tokenizers library raises Exception itself
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            if folder.is_dir():
                raise UserError(
                    f"the tokenizer in {path} can't be read ({reason}); copy its files again from where the model "
                    "comes from"
                ) from error
    if setting is not None:
        raise UserError(
            f"{setting}={path}: no tokenizer could be loaded ({reason}). Train one with: small-doge tokenizer train"
        )
    return None


def _choose_tokenizer_class(folder: Path) -> Any:
    """Return the class that loads the tokenizer of a folder: `AutoTokenizer`, which imports PyTorch, only where it is needed."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_bytes()) if file.is_file() else {}
    if config.get("tokenizer_class") in PLAIN_CLASSES and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def check_model_folder(path: str | Path, names: tuple[str, ...] | None = None) -> None:
    """Raise a `UserError` for a local folder that is not there or has torn files; a hub name passes.

    Args:
        path: a folder or a hub name.
        names: files that matter; all that a model is read from if None.
    """
    folder = Path(path)
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{path} is a file; name the folder of the model")
        if looks_like_path(str(path)):
            raise UserError(f"there is no folder {path}{find_near_names(folder)}")
        return
    for file in sorted(folder.iterdir()):
        if file.is_file() and _matters(file.name, names):
            reason = _find_file_damage(file)
            if reason is not None:
                raise UserError(f"{file} {reason}")
    damage = find_damage(folder) if names is None and (folder / MANIFEST).is_file() else None
    if damage is not None:
        raise UserError(f"{folder} can't be used: {damage}; name another checkpoint, or copy all of its files")


def _matters(name: str, names: tuple[str, ...] | None) -> bool:
    if names is not None:
        return name in names
    is_config = name in ("config.json", "generation_config.json", WEIGHTS_INDEX)
    return is_config or (name.endswith(".safetensors") and name.startswith("model"))


def _find_file_damage(file: Path) -> str | None:
    """Say what is wrong with a file of JSON or of weights, and the remedy."""
    with open(file, "rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            return "is a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
    again = "copy it again from where the model comes from"
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt"):
                return None
        except SafetensorError as error:
            return f"is cut or damaged ({error}); {again}"
    if file.suffix != ".json":
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        remedy = f"{again}, or delete it" if file.name == "generation_config.json" else again
        return f"is damaged ({error}); {remedy}"
    if not isinstance(content, dict):
        return f"holds no settings; {again}"
    if file.name == WEIGHTS_INDEX:
        missing = sorted(
            {name for name in content.get("weight_map", {}).values() if not (file.parent / name).is_file()}
        )
        if missing:
            return f"names weights that are not there: {', '.join(missing[:SHOWN])}; {again}"
    return None
