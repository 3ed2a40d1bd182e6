"""What the benchmarks share: both models with the same weights, times taken in turn, peaks of memory in a process each."""

import argparse
import gc
import json
import math
import multiprocessing
import platform
import subprocess
import time
from collections.abc import Callable
from queue import Empty

import torch
from transformers.models.doge import DogeConfig as PeerConfig
from transformers.models.doge import DogeForCausalLM as PeerModel

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.utils.hardware import describe_device


def build_pair(config: DogeConfig, dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Module]:
    """Ours and `transformers`' model with the same weights."""
    ours = DogeForCausalLM(config).to(dtype)
    peer = build_peer(config).to(dtype)
    peer.load_state_dict(ours.state_dict())
    return {"ours": ours, "peer": peer}


def build_peer(config: DogeConfig) -> PeerModel:
    """`transformers`' model of the same configuration, with its faster attention."""
    fields = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "legacy_routing")}
    peer_config = PeerConfig(**fields)
    peer_config._attn_implementation = "sdpa"
    return PeerModel(peer_config)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])


def time_in_turn(runs: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, float]:
    """Least seconds of each, run one after the other in every round; NaN for what does not fit on the GPU."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(-warmup, rounds):
        for name, run in runs.items():
            if math.isnan(best[name]):
                continue
            start = time.perf_counter()
            try:
                run()
            except torch.OutOfMemoryError:
                best[name] = math.nan
                continue
            finish()
            if turn >= 0:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def finish() -> None:
    """Wait for the GPU, if work was given to it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def measure_on_gpu(prepare: Callable[..., Callable[[], object]], *args: object, rounds: int) -> tuple[float, float]:
    """MiB of GPU memory that `prepare(*args)()` takes at its peak beyond what preparing took, and its least seconds.

    Both are NaN when the memory does not do.
    """
    try:
        run = prepare(*args)
        run()
        finish()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = time_in_turn({"it": run}, rounds)["it"]
        return (torch.cuda.max_memory_allocated() - before) / 2**20, seconds
    except torch.OutOfMemoryError:
        return math.nan, math.nan


def _peak(queue: multiprocessing.Queue, prepare: Callable, args: tuple) -> None:
    run = prepare(*args)
    with open("/proc/self/clear_refs", "w") as file:  # Linux: forget the peak so far
        file.write("5")
    before = _status_kib("VmRSS")
    start = time.perf_counter()
    run()
    queue.put((max(0, _status_kib("VmHWM") - before) / 2**10, time.perf_counter() - start))


def _status_kib(field: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def measure_once(prepare: Callable[..., Callable[[], object]], *args: object) -> tuple[float, float]:
    """MiB that `prepare(*args)()` takes at its peak beyond what preparing took, and its seconds, in a new process.

    Both are NaN when that process was killed, as a rule for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(queue, prepare, args))
    process.start()
    while True:
        try:
            result = queue.get(timeout=1)
        except Empty:
            if process.is_alive():
                continue
            return math.nan, math.nan  # killed, as a rule for want of memory
        process.join()
        return result


def measure_peak(device: str, dtype: torch.dtype, size: int, seconds: float = 1.0) -> float:
    """Measure the most floating-point operations a second that products of square matrices reach here."""
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end or best == math.inf:
        best = min(best, time_in_turn({"it": lambda: left @ right}, 1)["it"])
    return 2 * size**3 / best


def count_step_flops(config: DogeConfig, documents: list[int]) -> int:
    """Count the floating-point operations of a training step's products: forward, and twice that backward.

    Args:
        config: of a dense model.
        documents: tokens of each; a query meets the keys before it, of which it keeps the window.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
    attention = config.hidden_size * config.head_dim * (2 * heads + 2 * kv_heads)
    weights = config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size)
    weights += config.hidden_size * config.vocab_size
    window = config.keep_window_size
    pairs = sum(min(n, window) * (min(n, window) + 1) // 2 + max(0, n - window) * window for n in documents)
    scores = config.num_hidden_layers * 2 * heads * config.head_dim * pairs
    return 3 * 2 * (weights * sum(documents) + scores)


def report(name: str, rows: list[dict]) -> None:
    """A table, then one line of JSON with the commit and the machine."""
    # What could not be measured is null: JSON has no NaN.
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    print("\n" + format_table(rows))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    machine = {
        k: v
        for k, v in describe_device().items()
        if k in ("processor", "instructions", "cores", "memory_gib", "accelerators", "fast_bf16")
    }
    print(
        json.dumps(
            {
                "benchmark": name,
                "commit": commit,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "machine": machine,
                "rows": rows,
            }
        ),
        flush=True,
    )


def format_table(rows: list[dict]) -> str:
    """Make a Markdown table of rows that may differ in their columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_show(row.get(c, "")) for c in columns) + " |" for row in rows])


def _show(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
