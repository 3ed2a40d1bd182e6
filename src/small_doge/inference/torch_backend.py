"""The PyTorch backend: any checkpoint, at the speed of PyTorch."""

import copy
from typing import Any

import numpy as np
import torch

from ..models import DogeForCausalLM, DynamicMaskCache
from .backend import KeptKeys, sort_keys
from .sampling_options import check_integer


class TorchBackend:
    """A `DogeForCausalLM` with a bounded cache for each slot. Slots are computed one after the other.

    Args:
        model: the model, in evaluation mode.
        num_slots: sequences that are held at the same time.
        max_length: largest number of tokens in a sequence; None for no limit.
    """

    chunk_size = 512
    tokens_per_call = 128

    def __init__(self, model: DogeForCausalLM, num_slots: int = 8, max_length: int | None = None) -> None:
        self.model = model
        self.num_slots = check_integer("num_slots", num_slots, 1)
        self.max_length = max_length
        self.vocab_size: int = model.config.vocab_size
        self.keep_window_size: int = model.config.keep_window_size
        self.hidden_size: int = model.config.hidden_size
        self.shareable_length: int | None = model.model.rotary_emb.fixed_length
        self.caches = [DynamicMaskCache(model.config) for _ in range(num_slots)]

    @torch.no_grad()
    def prefill(self, slot: int, ids: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Append token ids [T] to a slot's sequence; return the logits [V] after the last, or [n, V] of those named."""
        self.model.model.rotary_emb.reset()  # which all sequences share
        input_ids = torch.as_tensor(np.asarray(ids), device=self.model.device)[None]
        rows: Any = 1 if keep is None else torch.as_tensor(keep, device=self.model.device)
        output = self.model(input_ids, past_key_values=self.caches[slot], use_cache=True, logits_to_keep=rows)
        logits = output.logits[0, -1] if keep is None else output.logits[0]
        return logits.float().cpu().numpy()

    @torch.no_grad()
    def compute_texts(self, ids: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Compute token ids [S, T] of several texts from their beginning; return logits [S, n, V] of the places named."""
        self.model.model.rotary_emb.reset()
        input_ids, rows = (torch.as_tensor(array, device=self.model.device) for array in (ids, keep))
        return self.model(input_ids, use_cache=False, logits_to_keep=rows).logits.float().cpu().numpy()

    @torch.no_grad()
    def compute_hidden(self, slot: int, ids: np.ndarray) -> np.ndarray:
        """Append token ids [T] to a slot's sequence; return the last hidden states [T, D], after the final norm."""
        self.model.model.rotary_emb.reset()
        input_ids = torch.as_tensor(np.asarray(ids), device=self.model.device)[None]
        output = self.model.model(input_ids, past_key_values=self.caches[slot], use_cache=True)
        return output.last_hidden_state[0].float().cpu().numpy()

    def read_keys(self, slot: int) -> list[list[KeptKeys]]:
        """Return what each key-value head of each layer keeps of a slot's sequence."""
        return [
            [
                sort_keys(index.cpu().numpy(), scores.float().cpu().numpy())
                for index, scores in zip(
                    layer.index[0, :, : layer.num_kept], layer.scores[0, :, : layer.num_kept], strict=True
                )
            ]
            for layer in self.caches[slot].layers
        ]

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

    @property
    def weight_nbytes(self) -> int:
        """Count the bytes of the weights."""
        return sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers()))

    def close(self) -> None:
        """Let go of the model and all slots."""
        del self.model, self.caches
