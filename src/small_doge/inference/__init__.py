"""Inference: export to ONNX, engines on ONNX Runtime and PyTorch, continuous batching, sampling."""

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
