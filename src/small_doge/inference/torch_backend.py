"""PyTorch behind the engine: any checkpoint, at the speed of PyTorch."""

import copy
from typing import Any

import numpy as np
import torch

from ..models import DynamicMaskCache
from .options import check_integer


class TorchBackend:
    """A `DogeForCausalLM` with a bounded cache per lane. Lanes are computed one after the other.

    Args:
        model: the model, in evaluation mode.
        lanes: sequences at once.
        max_length: tokens that a sequence may have; None for no limit.
    """

    chunk_size = 512

    def __init__(self, model: Any, lanes: int = 8, max_length: int | None = None) -> None:
        self.model = model
        self.lanes = check_integer("lanes", lanes, 1)
        self.max_length = max_length
        self.vocab_size = model.config.vocab_size
        self.keep_window_size = model.config.keep_window_size
        self.caches = [DynamicMaskCache(model.config) for _ in range(lanes)]

    def clear(self, lane: int) -> None:
        """Forget the sequence of a lane."""
        self.caches[lane] = DynamicMaskCache(self.model.config)

    def move(self, source: int, target: int) -> None:
        """Let the sequence of one lane go on in another."""
        self.caches[target] = self.caches[source]
        self.clear(source)

    @torch.no_grad()
    def extend(self, lane: int, ids: np.ndarray) -> np.ndarray:
        """Take in tokens [T]; logits [V] after the last."""
        tokens = torch.as_tensor(np.asarray(ids), device=self.model.device)[None]
        output = self.model(tokens, past_key_values=self.caches[lane], use_cache=True, logits_to_keep=1)
        return output.logits[0, -1].float().cpu().numpy()

    def step(self, count: int, tokens: np.ndarray) -> np.ndarray:
        """A token for each of the first lanes; logits [n, V]."""
        return np.stack([self.extend(lane, tokens[lane : lane + 1]) for lane in range(count)])

    def save(self, lane: int) -> Any:
        """A copy of a lane's state."""
        return copy.deepcopy(self.caches[lane])

    def load(self, lane: int, saved: Any, length: int) -> None:
        """Begin a lane with the first `length` tokens of a saved state."""
        self.caches[lane] = copy.deepcopy(saved)
        self.caches[lane].crop(length - saved.get_seq_length())

    def get_length(self, lane: int) -> int:
        """Tokens that a lane has taken in."""
        return self.caches[lane].get_seq_length()

    @property
    def nbytes(self) -> int:
        """Bytes of all lanes' caches."""
        return sum(cache.nbytes for cache in self.caches)
