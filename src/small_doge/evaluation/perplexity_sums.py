"""Sums of log-likelihoods, and the figures that they give."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..processor.measuring import count_run_bytes, measure_tokens
from ..utils.files import write_bytes
from .scored_documents import Window


FIRST_BUCKET = 16  # positions below it stand in one bucket


def make_edges(context: int) -> list[int]:
    """Return the first position of each bucket: 1, then powers of two below the context, which the last bucket ends with."""
    edges = [1]
    while (following := max(FIRST_BUCKET, 2 * edges[-1])) < context:
        edges.append(following)
    return edges


class Sums:
    """Sums of negative log-likelihoods, tokens and bytes, by window and by position.

    Attributes:
        by_window: [windows, 3] float64: nats, tokens, bytes.
        by_position: [buckets, 3].
    """

    def __init__(self, num_windows: int, context: int, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.sizes = tokenizer, measure_tokens(tokenizer)
        self.edges, self.context = make_edges(context), context
        self.by_window = np.zeros((num_windows, 3))
        self.by_position = np.zeros((len(self.edges), 3))

    def add(self, number: int, window: Window, nats: np.ndarray) -> None:
        """Add the nats [n] of a window's predicted tokens; those that are not to be counted are left out."""
        targets, scored = window.ids[1:], window.scored
        positions = np.flatnonzero(scored) + 1
        buckets = np.searchsorted(self.edges, positions, side="right") - 1
        columns = [nats[scored], np.ones(len(positions))]
        if self.sizes is not None:
            columns.append(self.sizes[targets[scored]])
        for column, values in enumerate(columns):
            self.by_window[number, column] = values.sum()
            self.by_position[:, column] += np.bincount(buckets, values, minlength=len(self.edges))
        if self.sizes is None:
            self.by_window[number, 2] = count_run_bytes(targets, scored, self.tokenizer)
            self.by_position[:, 2] = math.nan

    def save(self, path: Path) -> None:
        """Write the sums to a file."""
        content = io.BytesIO()
        np.savez(content, by_window=self.by_window, by_position=self.by_position)
        write_bytes(path, content.getvalue())

    def load(self, path: Path) -> bool:
        """Read the sums from a file; tell whether there are any."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                self.by_window, self.by_position = kept["by_window"], kept["by_position"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return False
        return True

    def summarize(self) -> dict[str, Any]:
        """Return perplexity and bits per byte of all, with the standard error over windows, and of each bucket."""
        rate, stderr = estimate_bits(self.by_window)
        last = [edge - 1 for edge in self.edges[1:]]
        rows = zip(self.edges, [*last, self.context], self.by_position.tolist(), strict=True)
        return {
            **describe_sums(*self.by_window.sum(axis=0).tolist()),
            "bits_per_byte": rate,
            "stderr_bits_per_byte": stderr,
            "positions": [{"from": a, "to": b, **describe_sums(*sums)} for a, b, sums in rows if sums[1]],
        }


def describe_sums(nats: float, tokens: float, size: float) -> dict[str, Any]:
    """Describe sums of nats, tokens and bytes."""
    known = not math.isnan(size) and size > 0
    return {
        "tokens": int(tokens),
        "bytes": int(size) if known else None,
        "nats_per_token": nats / tokens,
        "perplexity": math.exp(min(nats / tokens, 700)),
        "bits_per_byte": nats / math.log(2) / size if known else None,
    }


def estimate_bits(by_window: np.ndarray) -> tuple[float | None, float | None]:
    """Estimate bits per byte, and its standard error as that of a ratio, from nats, tokens and bytes of windows."""
    nats, _, size = by_window.T
    if not size.sum() > 0:
        return None, None
    bits = nats / math.log(2)
    rate, count = bits.sum() / size.sum(), len(bits)
    if count < 2:
        return float(rate), None
    spread = ((bits - rate * size) ** 2).sum() * count / (count - 1)
    return float(rate), float(math.sqrt(spread) / size.sum())
