"""Running a trained model: export to ONNX, engines on ONNX Runtime and PyTorch, sampling, batching."""

from .engine import Answer, Engine
from .loading import OnnxEngine, TorchEngine, is_exported, open_engine
from .sampling import SamplingOptions, Token


__all__ = ["Answer", "Engine", "OnnxEngine", "SamplingOptions", "Token", "TorchEngine", "is_exported", "open_engine"]
