"""What this machine is and can do."""

import platform
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch

from .logging import get_logger


logger = get_logger(__name__)


@cache
def has_fast_bf16(device_type: str) -> bool:
    """Tell whether bfloat16 products run on instructions of their own; emulated ones are far slower than float32."""
    if device_type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "xpu"


@cache
def _notify_once(message: str) -> None:
    logger.warning(message)


def without_emulated_bf16(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Run a module's forward in float32 where autocast asks a CPU for bfloat16 that it would only emulate."""

    @wraps(forward)
    def wrapper(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        emulated = (
            torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and not has_fast_bf16("cpu")
            and self.device.type == "cpu"
        )
        if not emulated:
            return forward(self, *args, **kwargs)
        _notify_once("bfloat16 is emulated on this CPU: computing in float32, which is faster and more exact")
        with torch.autocast("cpu", enabled=False):
            return forward(self, *args, **kwargs)

    return wrapper


def describe_device() -> dict[str, Any]:
    """Describe processor, cores, memory in GiB and accelerators."""
    import psutil

    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple GPU (mps)")
    return {
        "processor": _processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "memory_free_gib": round(psutil.virtual_memory().available / 2**30, 1),
        "accelerators": accelerators,
        "fast_bf16": has_fast_bf16("cuda" if torch.cuda.is_available() else "cpu"),
    }


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
