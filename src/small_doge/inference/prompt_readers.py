"""What can be found out about a prompt while it is computed: probabilities, kept keys, an embedding.

A reader belongs to one request. The scheduler lets it compute each chunk of the prompt, so that reading a long prompt holds
nobody up, and begins it anew if the computation was interrupted.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..utils.errors import UserError
from .backend import Backend, KeptKeys
from .sampling import Token, check_logits, describe_token


SCORED_AT_ONCE = 64  # tokens; each has V logits


@dataclass
class Inspection:
    """What a model makes of a text.

    Attributes:
        tokens: with the log-probability of each given the ones before it, and the likeliest in its place.
        kept: the keys that are kept at the end, by layer and key-value head.
    """

    tokens: list[Token]
    kept: list[list[KeptKeys]]


class PromptReader(Protocol):
    """Computes the chunks of a prompt in place of `Backend.prefill`.

    Attributes:
        chunk_size: largest number of tokens in a chunk.
    """

    chunk_size: int

    def check(self, backend: Backend, name: str) -> None:
        """Raise a `UserError` if the model with this name can't be read so."""

    def begin(self) -> None:
        """Forget everything: a prompt begins."""

    def read(self, backend: Backend, slot: int, ids: np.ndarray, is_last: bool) -> np.ndarray:
        """Compute the next chunk [T] of the prompt; return the logits [V] after it, or nothing where none follow."""


class Scorer:
    """Finds the probability of each token of a prompt given the ones before, and if asked the keys that are kept.

    Args:
        top: number of most likely tokens to report at each place.
        with_keys: whether to read the kept keys at the end.

    Attributes:
        tokens: the tokens of the prompt; the first has no log-probability.
        kept: by layer and key-value head.
    """

    chunk_size = SCORED_AT_ONCE

    def __init__(self, top: int = 0, with_keys: bool = False) -> None:
        self.top = top
        self.with_keys = with_keys
        self.begin()

    def check(self, backend: Backend, name: str) -> None:
        """Accept any model."""

    def begin(self) -> None:
        """Forget everything: a prompt begins."""
        self.tokens: list[Token] = []
        self.kept: list[list[KeptKeys]] = []
        self.logits: np.ndarray | None = None  # after the last token

    def read(self, backend: Backend, slot: int, ids: np.ndarray, is_last: bool) -> np.ndarray:
        """Compute the next chunk [T] of the prompt; return the logits [V] after it."""
        rows = backend.prefill(slot, ids, np.arange(len(ids)))
        for token_id, following in zip(ids.tolist(), rows, strict=True):
            check_logits(following)
            before = self.logits
            self.tokens.append(Token(token_id) if before is None else describe_token(token_id, before, self.top))
            self.logits = following
        last = self.logits = rows[-1].copy()
        if is_last and self.with_keys:
            self.kept = backend.read_keys(slot)
        return last


class Embedder:
    """Finds the mean of the last hidden states over a prompt. Nothing can be generated after it.

    Attributes:
        chunk_size: largest number of tokens in a chunk.
        embedding: [D] float32, once the prompt has been read.
    """

    chunk_size = 1 << 30  # as many as the backend takes

    def __init__(self) -> None:
        self.begin()

    def check(self, backend: Backend, name: str) -> None:
        """Refuse an export without hidden states."""
        if backend.hidden_size is None:
            raise UserError(f"{name} was exported by a version without embeddings: export the model again to get them")

    def begin(self) -> None:
        """Forget everything: a prompt begins."""
        self.embedding: np.ndarray | None = None
        self.total: np.ndarray | float = 0.0
        self.count = 0

    def read(self, backend: Backend, slot: int, ids: np.ndarray, is_last: bool) -> np.ndarray:
        """Add the hidden states of the next chunk [T] of the prompt; return no logits."""
        self.total = self.total + backend.compute_hidden(slot, ids).sum(axis=0, dtype=np.float64)
        self.count += len(ids)
        if is_last:
            self.embedding = np.asarray(self.total / self.count, dtype=np.float32)
            if not np.isfinite(self.embedding).all():
                raise UserError("the model computed hidden states that are not finite: its weights are damaged")
        return np.empty(0, dtype=np.float32)
