"""The interface between the scheduler and whatever computes the model."""

from typing import Any, Protocol

import numpy as np


class Backend(Protocol):
    """Computes the model for several sequences, each of which has a slot for its keys and values.

    Attributes:
        vocab_size: V, the number of token ids.
        keep_window_size: keys that a head keeps of a sequence.
        max_length: largest number of tokens in a sequence; None for no limit.
        num_slots: sequences that are held at the same time.
        chunk_size: largest number of tokens in one `prefill`.
    """

    vocab_size: int
    keep_window_size: int
    max_length: int | None
    num_slots: int
    chunk_size: int

    def prefill(self, slot: int, ids: np.ndarray) -> np.ndarray:
        """Append token ids [T], at most `chunk_size`, to a slot's sequence; return the logits [V] after the last."""

    def decode(self, count: int, ids: np.ndarray) -> np.ndarray:
        """Append one token id [count] to each of the slots 0 to count - 1.

        Returns:
            Logits [count, V], valid until the next call.
        """

    def clear(self, slot: int) -> None:
        """Remove a slot's sequence."""

    def move(self, source: int, target: int) -> None:
        """Move a sequence to another slot, replacing the one there."""

    def save(self, slot: int) -> Any:
        """Copy a slot's state."""

    def load(self, slot: int, state: Any, length: int) -> None:
        """Start a slot with the first `length` tokens of a copied state: all of them if any key was evicted."""

    def get_length(self, slot: int) -> int:
        """Count the tokens of a slot's sequence."""

    @property
    def nbytes(self) -> int:
        """Count the bytes of all slots' keys, values and scores."""
