"""Opening a model for inference: an exported folder on ONNX Runtime, or a checkpoint on PyTorch."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError
from ..utils.files import find_damage
from ..utils.model_folder import load_tokenizer
from ..utils.vocabulary import check_tokenizer_fits
from .detokenizer import Tokenizer
from .engine import Engine
from .sampling_options import check_integer


if TYPE_CHECKING:
    from ..models import DogeForCausalLM

GRAPH = "model.onnx"
RUNTIME = "runtime.json"
FORMAT_VERSION = 1
# Of exports with a `kv_cache_dtype`: readers that know version 1 alone would take the cache for float32.
CACHE_FORMAT_VERSION = 2


class OnnxEngine(Engine):
    """Generates text with an exported folder, on ONNX Runtime.

    Memory and time per token are bounded for texts of any length: a slot holds at most `keep_window_size` keys per head,
    and 256 more.

    Args:
        folder: what `small-doge export --format onnx` wrote.
        num_slots: requests that are computed together.
        threads: processor threads of an operator; None chooses them by a quick measurement.

    Attributes:
        settings: the content of `runtime.json`.
        threads: processor threads of an operator.

    Raises:
        UserError: the folder does not exist, holds something else, or has a damaged file.
    """

    def __init__(self, folder: str | Path, num_slots: int = 8, threads: int | None = None) -> None:
        from .onnx_backend import OnnxBackend

        folder = Path(folder)
        self.settings = read_runtime(folder)
        backend = OnnxBackend(folder / GRAPH, self.settings, num_slots, threads)
        config, tokenizer = read_config(folder), load_tokenizer(folder)
        if tokenizer is not None:
            known = SimpleNamespace(**{**config, "vocab_size": self.settings["vocab_size"]})
            check_tokenizer_fits(tokenizer, known, str(folder), SimpleNamespace(eos_token_id=self.settings["end_ids"]))
        trained = config.get("max_position_embeddings")
        super().__init__(backend, tokenizer, self.settings["end_ids"], str(folder), trained)
        self.threads = backend.threads


class TorchEngine(Engine):
    """Generates text with a checkpoint, on PyTorch.

    Args:
        model: a folder, a hub name, or a `DogeForCausalLM`.
        tokenizer: tokenizer of the model; the one in its folder if None.
        num_slots: requests that are advanced in turn.

    Raises:
        UserError: there is no such model, or it is of another family.
    """

    def __init__(
        self, model: "str | Path | DogeForCausalLM", tokenizer: Tokenizer | None = None, num_slots: int = 8
    ) -> None:
        from ..models import DogeForCausalLM
        from .checkpoints import open_checkpoint
        from .torch_backend import TorchBackend

        name, own = str(model) if isinstance(model, str | Path) else "the model", None
        if isinstance(model, str | Path):
            model, own = open_checkpoint(model)
        if not isinstance(model, DogeForCausalLM):
            raise UserError(f"{name} is a {type(model).__name__}, not a Doge model")
        if tokenizer is not None:
            check_tokenizer_fits(tokenizer, model.config, name, model.generation_config)
        tokenizer = tokenizer or own
        end_ids = find_end_ids(model.generation_config.eos_token_id, tokenizer)
        trained = model.config.max_position_embeddings
        super().__init__(TorchBackend(model.eval(), num_slots), tokenizer, end_ids, name, trained)


def open_engine(name: str | Path, num_slots: int = 8, threads: int | None = None) -> Engine:
    """Open an exported folder, a checkpoint or a hub name.

    Args:
        name: a folder or hub name.
        num_slots: requests that are computed together.
        threads: processor threads; None chooses them for an exported folder, and leaves PyTorch's setting for others.

    Raises:
        UserError: there is no such model, or it can't be used.
    """
    check_integer("num_slots", num_slots, 1)
    threads = None if threads is None else check_integer("threads", threads, 1)
    if is_exported(name):
        return OnnxEngine(name, num_slots, threads)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return TorchEngine(name, num_slots=num_slots)


def find_end_ids(eos_token_id: int | Sequence[int] | None, tokenizer: Tokenizer | None) -> list[int]:
    """Collect the token ids that end an output: those of the generation settings, and the tokenizer's."""
    from ..processor.tokenizer import build_generation_config

    named = [eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or []
    own = [] if tokenizer is None else build_generation_config(tokenizer).eos_token_id
    return sorted({*named, *(token_id for token_id in own if token_id is not None)})


def read_config(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of an export, which has the trained length and more; empty where there is none."""
    path = folder / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def is_exported(name: str | Path) -> bool:
    """Tell whether a folder holds an exported graph."""
    return any((Path(name) / file).exists() for file in (RUNTIME, GRAPH))


def read_runtime(folder: Path) -> dict[str, Any]:
    """Read the runtime configuration of an exported folder, after checking that its files are whole.

    Raises:
        UserError: it is missing, of another format, or damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; export a model first: small-doge export CHECKPOINT --output {folder}"
        )
    try:
        settings = json.loads((folder / RUNTIME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RUNTIME}: it was not written by small-doge export. For a checkpoint use TorchEngine, or "
            f"export it: small-doge export {folder} --output DIR"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / RUNTIME} is damaged ({error}); export the model again") from error
    versions = (FORMAT_VERSION, CACHE_FORMAT_VERSION)
    if settings.get("format") != "small-doge-onnx" or settings.get("version") not in versions:
        raise UserError(
            f"{folder / RUNTIME} has format {settings.get('format')!r}, version {settings.get('version')!r}; this "
            f"small-doge reads 'small-doge-onnx', versions {versions[0]} and {versions[1]}: export the model again"
        )
    damage = find_damage(folder)
    if damage is not None:
        raise UserError(f"{folder} can't be used: {damage}; export the model again, or copy all of its files")
    return settings
