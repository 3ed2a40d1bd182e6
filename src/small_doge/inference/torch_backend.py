"""The PyTorch backend: any checkpoint, at the speed of PyTorch."""

import copy

import numpy as np
import torch

from ..models import DogeForCausalLM, DynamicMaskCache
from .sampling_options import check_integer


class TorchBackend:
    """A `DogeForCausalLM` with a bounded cache for each slot. Slots are computed one after the other.

    Args:
        model: the model, in evaluation mode.
        num_slots: sequences that are held at the same time.
        max_length: largest number of tokens in a sequence; None for no limit.
    """

    chunk_size = 512

    def __init__(self, model: DogeForCausalLM, num_slots: int = 8, max_length: int | None = None) -> None:
        self.model = model
        self.num_slots = check_integer("num_slots", num_slots, 1)
        self.max_length = max_length
        self.vocab_size: int = model.config.vocab_size
        self.keep_window_size: int = model.config.keep_window_size
        self.caches = [DynamicMaskCache(model.config) for _ in range(num_slots)]

    @torch.no_grad()
    def prefill(self, slot: int, ids: np.ndarray) -> np.ndarray:
        """Append token ids [T] to a slot's sequence; return the logits [V] after the last."""
        input_ids = torch.as_tensor(np.asarray(ids), device=self.model.device)[None]
        output = self.model(input_ids, past_key_values=self.caches[slot], use_cache=True, logits_to_keep=1)
        return output.logits[0, -1].float().cpu().numpy()

    def decode(self, count: int, ids: np.ndarray) -> np.ndarray:
        """Append one token id [count] to each of the first slots; return logits [count, V]."""
        return np.stack([self.prefill(slot, ids[slot : slot + 1]) for slot in range(count)])

    def clear(self, slot: int) -> None:
        """Remove a slot's sequence."""
        self.caches[slot] = DynamicMaskCache(self.model.config)

    def move(self, source: int, target: int) -> None:
        """Move a sequence to another slot, replacing the one there."""
        self.caches[target] = self.caches[source]
        self.clear(source)

    def save(self, slot: int) -> DynamicMaskCache:
        """Copy a slot's state."""
        return copy.deepcopy(self.caches[slot])

    def load(self, slot: int, state: DynamicMaskCache, length: int) -> None:
        """Start a slot with the first `length` tokens of a copied state."""
        self.caches[slot] = copy.deepcopy(state)
        self.caches[slot].crop(length - state.get_seq_length())

    def get_length(self, slot: int) -> int:
        """Count the tokens of a slot's sequence."""
        return self.caches[slot].get_seq_length()

    @property
    def nbytes(self) -> int:
        """Count the bytes of all slots' caches."""
        return sum(cache.nbytes for cache in self.caches)
