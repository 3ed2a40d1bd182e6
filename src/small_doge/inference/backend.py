"""What an engine needs of whatever computes the model."""

from typing import Any, Protocol

import numpy as np


class Backend(Protocol):
    """Computes the model for several sequences, each in a lane. Lanes 0 to n - 1 can take a step together.

    Attributes:
        vocab_size: V.
        keep_window_size: w.
        max_length: tokens that a sequence may have, or None.
        lanes: sequences at once.
        chunk_size: tokens that `extend` takes at most.
    """

    vocab_size: int
    keep_window_size: int
    max_length: int | None
    lanes: int
    chunk_size: int

    def clear(self, lane: int) -> None:
        """Forget the sequence of a lane."""

    def move(self, source: int, target: int) -> None:
        """Let the sequence of one lane go on in another, whose own is forgotten."""

    def extend(self, lane: int, ids: np.ndarray) -> np.ndarray:
        """Take in tokens [T], at most `chunk_size`, and return the logits [V] after the last."""

    def step(self, count: int, tokens: np.ndarray) -> np.ndarray:
        """Take in a token [n] for each of the lanes 0 to count - 1; logits [n, V], valid until the next call."""

    def save(self, lane: int) -> Any:
        """A copy of a lane's state."""

    def load(self, lane: int, saved: Any, length: int) -> None:
        """Begin a lane with the first `length` tokens of a saved state; fewer than all only before any eviction."""

    def get_length(self, lane: int) -> int:
        """Tokens that a lane has taken in."""

    @property
    def nbytes(self) -> int:
        """Bytes of all lanes' keys, values and scores."""
