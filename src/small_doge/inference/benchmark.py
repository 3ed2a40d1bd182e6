"""Benchmark of an engine: prefill, decoding, time to the first token and memory, by depth and batch size."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.plots import saved_figure
from .backend import Backend
from .engine import Engine


ROUNDS = 3


def measure_engine(
    engine: Engine,
    depths: Sequence[int],
    batch_sizes: Sequence[int],
    new_tokens: int = 32,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Measure every depth and batch size that the model can take.

    Args:
        engine: one with as many slots as the largest batch size.
        depths: numbers of tokens in the cache before decoding is timed.
        batch_sizes: numbers of sequences that are decoded together.
        new_tokens: number of decoding steps to time.
        say: is called with what is being measured, and with what is left out.

    Returns:
        A row for each, the best of three rounds: `depth`, `batch`, `prefill_tok_s` (None at depth 0), `first_token_ms`,
        `decode_tok_s` (tokens per second of all sequences together), `state_mib` (keys, values and scores) and
        `process_mib` (resident memory of the process), both in MiB.
    """
    limit, rows = engine.backend.max_length, []
    for depth in [depth for depth in depths if limit is not None and depth + new_tokens > limit]:
        say(f"depth {depth} left out: the model takes {limit} tokens")
    for batch in sorted(batch_sizes):  # memory that was once taken for several is kept
        for depth in sorted(depths):
            if limit is None or depth + new_tokens <= limit:
                say(f"depth {depth}, {batch} at once")
                rows.append(_measure(engine, depth, batch, new_tokens))
    return rows


def _measure(engine: Engine, depth: int, batch: int, new_tokens: int) -> dict[str, Any]:
    """Measure one depth and batch size."""
    import psutil

    backend, random = engine.backend, np.random.default_rng(0)
    prompt = random.integers(0, backend.vocab_size, max(1, depth))
    first, decode = np.inf, np.inf
    for _ in range(ROUNDS):
        for slot in range(batch):
            start = time.perf_counter()
            prefill_prompt(backend, slot, prompt)
            first = min(first, time.perf_counter() - start)
        tokens = random.integers(0, backend.vocab_size, (new_tokens, batch))
        start = time.perf_counter()
        for ids in tokens:
            backend.decode(batch, ids)
        decode = min(decode, (time.perf_counter() - start) / new_tokens)
    row = {
        "depth": depth,
        "batch": batch,
        "prefill_tok_s": round(depth / first, 1) if depth else None,
        "first_token_ms": round(first * 1e3, 2),
        "decode_tok_s": round(batch / decode, 1),
        "state_mib": round(backend.nbytes / 2**20, 2),
        "process_mib": round(psutil.Process(os.getpid()).memory_info().rss / 2**20, 1),
    }
    for slot in range(batch):
        backend.clear(slot)
    return row


def prefill_prompt(backend: Backend, slot: int, prompt: np.ndarray) -> np.ndarray:
    """Compute a prompt of one token at least in an empty slot, chunk by chunk; return the logits [V] after it."""
    backend.clear(slot)
    for start in range(0, len(prompt), backend.chunk_size):
        logits = backend.prefill(slot, prompt[start : start + backend.chunk_size])
    return logits


def plot_rows(rows: Iterable[dict[str, Any]], path: str | Path, title: str) -> None:
    """Plot tokens per second by depth, for each number of threads and batch size, and write the figure."""
    with saved_figure(path, 10, 4) as figure:
        left, right = figure.subplots(1, 2)
        for axis, field, name in ((left, "decode_tok_s", "Decoding"), (right, "prefill_tok_s", "Prompt")):
            lines: dict[tuple[int, int], list[tuple[int, float]]] = {}
            for row in rows:
                if row[field] is not None and (
                    field == "decode_tok_s" or row["batch"] == min(r["batch"] for r in rows)
                ):
                    lines.setdefault((row["threads"], row["batch"]), []).append((row["depth"], row[field]))
            for (threads, batch), points in lines.items():
                label = f"{threads} threads, {batch} at once" if field == "decode_tok_s" else f"{threads} threads"
                axis.plot(*zip(*points, strict=True), marker="o", label=label)
            axis.set(title=name, xlabel="tokens before", ylabel="tokens per second", ylim=(0, None))
            axis.grid(alpha=0.3)
            if lines:
                axis.legend(fontsize="small")
        figure.suptitle(title)
