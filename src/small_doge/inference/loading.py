"""Which engine serves a name: an exported folder, or a checkpoint."""

import json
from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.files import find_damage
from ..utils.model_folder import load_tokenizer
from .engine import Engine, find_end_ids
from .options import check_integer


GRAPH = "model.onnx"
RUNTIME = "runtime.json"
FORMAT_VERSION = 1


class OnnxEngine(Engine):
    """Answers from an exported folder, on ONNX Runtime.

    Memory and time per token stay the same however long a text gets: a lane holds at most `keep_window_size` keys per
    head, and 256 more.

    Args:
        folder: what `small-doge export --format onnx` wrote.
        lanes: answers that are computed together.
        threads: of one operator; None lets a probe choose.

    Raises:
        UserError: no such folder, a torn file, a folder of something else.
    """

    def __init__(self, folder: str | Path, lanes: int = 8, threads: int | None = None) -> None:
        from .onnx_backend import OnnxBackend

        folder = Path(folder)
        self.settings = read_runtime(folder)
        backend = OnnxBackend(folder / GRAPH, self.settings, lanes, threads)
        trained = read_trained_length(folder)
        super().__init__(backend, load_tokenizer(folder), self.settings["end_ids"], str(folder), trained)
        self.threads = backend.threads


class TorchEngine(Engine):
    """Answers from a checkpoint, on PyTorch.

    Args:
        model: folder or hub name, or a `DogeForCausalLM`.
        tokenizer: of the model; that of the folder if None.
        lanes: answers that are computed at the same time.
    """

    def __init__(self, model: Any, tokenizer: Any = None, lanes: int = 8) -> None:
        from ..models import DogeForCausalLM
        from .checkpoints import open_checkpoint
        from .torch_backend import TorchBackend

        name = str(model) if isinstance(model, str | Path) else "the model"
        if isinstance(model, str | Path):
            model, own = open_checkpoint(model)
            tokenizer = tokenizer or own
        if not isinstance(model, DogeForCausalLM):
            raise UserError(f"{name} is a {type(model).__name__}, not a Doge model")
        ids = model.generation_config.eos_token_id
        end_ids = find_end_ids([ids] if isinstance(ids, int) else ids or [], tokenizer)
        trained = model.config.max_position_embeddings
        super().__init__(TorchBackend(model.eval(), lanes), tokenizer, end_ids, name, trained)


def open_engine(name: str | Path, lanes: int = 8, threads: int | None = None) -> Engine:
    """The engine for an exported folder, a checkpoint or a hub name."""
    check_integer("lanes", lanes, 1)
    threads = None if threads is None else check_integer("threads", threads, 1)
    if is_exported(name):
        return OnnxEngine(name, lanes, threads)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return TorchEngine(name, lanes=lanes)


def read_trained_length(folder: Path) -> int | None:
    """What the `config.json` of an export says."""
    path = folder / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings") if path.is_file() else None


def is_exported(name: str | Path) -> bool:
    """Whether a folder holds an exported graph."""
    return any((Path(name) / file).exists() for file in (RUNTIME, GRAPH))


def read_runtime(folder: Path) -> dict[str, Any]:
    """The runtime configuration of an exported folder whose files are whole.

    Raises:
        UserError: it is not there, is another's, or is damaged.
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
    if settings.get("format") != "small-doge-onnx" or settings.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{folder / RUNTIME} has format {settings.get('format')!r}, version {settings.get('version')!r}; this "
            f"small-doge reads 'small-doge-onnx', version {FORMAT_VERSION}: export the model again"
        )
    damage = find_damage(folder)
    if damage is not None:
        raise UserError(f"{folder} can't be used: {damage}; export the model again, or copy all of its files")
    return settings
