"""The interface between the scheduler and whatever computes the model."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass
class KeptKeys:
    """The keys that a key-value head keeps of a text.

    Attributes:
        positions: of their tokens in the text, rising.
        scores: how much each is worth keeping, by dynamic mask attention.
    """

    positions: list[int]
    scores: list[float]


class Backend(Protocol):
    """Computes the model for several sequences, each of which has a slot for its keys and values.

    Attributes:
        vocab_size: V, the number of token ids.
        keep_window_size: keys that a head keeps of a sequence.
        max_length: largest number of tokens in a sequence; None for no limit.
        num_slots: sequences that are held at the same time.
        chunk_size: largest number of tokens in one `prefill`.
        shareable_length: tokens of the longest sequence that others may start from a copy of, or be computed in one call
            with; None for any number. Past it, what a model computes of a token can depend on the tokens that follow.
        tokens_per_call: tokens that are computed in the time that a call costs beside its tokens, about.
    """

    vocab_size: int
    keep_window_size: int
    max_length: int | None
    num_slots: int
    chunk_size: int
    shareable_length: int | None
    tokens_per_call: int

    def prefill(self, slot: int, ids: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Append token ids [T], at most `chunk_size`, to a slot's sequence.

        Args:
            slot: the slot.
            ids: token ids.
            keep: indices [n] of the tokens whose logits are wanted; None for the last.

        Returns:
            Logits [V] after the last token, or [n, V].
        """

    def compute_texts(self, ids: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Compute token ids [S, T] of several texts, each from its beginning; T is at most `chunk_size`.

        What stands after the end of a shorter text changes nothing before it. The first S slots are empty afterwards.

        Args:
            ids: token ids.
            keep: indices [n] of the places whose logits are wanted.

        Returns:
            Logits [S, n, V], valid until the next call.
        """

    @property
    def hidden_size(self) -> int | None:
        """Return D, the size of a hidden state; None if `compute_hidden` can't be asked."""

    def compute_hidden(self, slot: int, ids: np.ndarray) -> np.ndarray:
        """Append token ids [T] as `prefill` does; return the last hidden states [T, D], after the final norm."""

    def read_keys(self, slot: int) -> list[list[KeptKeys]]:
        """Return what each key-value head of each layer keeps of a sequence that was computed by `prefill` alone."""

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

    @property
    def weight_nbytes(self) -> int:
        """Count the bytes of the weights."""

    def close(self) -> None:
        """Free the weights and all slots; nothing can be computed any more."""


def sort_keys(positions: np.ndarray, scores: np.ndarray) -> KeptKeys:
    """Make the kept keys of a head of their positions [n] and scores [n], in any order."""
    order = np.argsort(positions)
    return KeptKeys(positions[order].tolist(), scores[order].tolist())
