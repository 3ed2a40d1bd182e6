"""Inference: export to ONNX, engines on ONNX Runtime and PyTorch, continuous batching, sampling.

Its names are imported when they are asked for: the options of sampling need no engine.
"""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names


if TYPE_CHECKING:
    from .engine import Engine
    from .loading import OnnxEngine, TorchEngine, is_exported, open_engine
    from .prompt_readers import Embedder, Inspection, Scorer
    from .request import Request
    from .sampling import Token
    from .sampling_options import SamplingOptions

__all__ = [
    "Embedder",
    "Engine",
    "Inspection",
    "OnnxEngine",
    "Request",
    "SamplingOptions",
    "Scorer",
    "Token",
    "TorchEngine",
    "is_exported",
    "open_engine",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Embedder": ".prompt_readers",
        "Engine": ".engine",
        "Inspection": ".prompt_readers",
        "OnnxEngine": ".loading",
        "Request": ".request",
        "SamplingOptions": ".sampling_options",
        "Scorer": ".prompt_readers",
        "Token": ".sampling",
        "TorchEngine": ".loading",
        "is_exported": ".loading",
        "open_engine": ".loading",
    },
)
