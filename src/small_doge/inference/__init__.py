"""Running a trained model: export to ONNX, engines on ONNX Runtime and PyTorch, sampling, batching."""

from .answer import Answer
from .engine import Engine
from .loading import OnnxEngine, TorchEngine, is_exported, open_engine
from .options import SamplingOptions
from .sampling import Token


__all__ = ["Answer", "Engine", "OnnxEngine", "SamplingOptions", "Token", "TorchEngine", "is_exported", "open_engine"]
