"""The cache of Doge models for `transformers`: the best w keys per key-value head, exact for any length.

The score of a key depends on its token alone, so a key that is not among the w best of a prefix is never again among
them: what falls out is not needed (docs/models.md). How keys are kept and attended to is
`small_doge.ops.dynamic_mask_attention.decode`; this module fits it to the interface of `transformers`.

Shapes: B batch, T tokens, H query heads, K key-value heads, d head dimension, w `keep_window_size`.
"""

import inspect
from typing import Any

import torch
from transformers import Cache, CacheLayerMixin, GenerationMixin

from ..ops.dynamic_mask_attention.decode import attend_with_buffers, empty_buffers
from ..ops.dynamic_mask_attention.masking import PADDING_SCORE, KeptKeys
from ..utils.errors import UserError


# What `transformers` calls the argument, and the output, that carries the cache: "cache" since 5.24.
CACHE_NAME = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
)


class DynamicMaskLayer(CacheLayerMixin):
    """Holds the kept keys of one layer in at most w slots, of which the first `num_kept` are in use.

    The slots are `keys` and `values` [B, K, slots, d], `scores` and `index` [B, K, slots]; None before the first keys.
    """

    is_sliding = False

    keys: torch.Tensor
    values: torch.Tensor
    scores: torch.Tensor
    index: torch.Tensor

    def __init__(self, keep_window_size: int) -> None:
        super().__init__()
        self.keep_window_size = keep_window_size
        self.reset()

    @property
    def is_croppable(self) -> bool:
        """Tell whether nothing has been evicted yet."""
        return self.cumulative_length <= self.keep_window_size

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make empty buffers with the type, device and head count of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._set_buffers(empty_buffers(key_states, value_states))
        self.is_initialized = True

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, score: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attend from new queries to the kept keys and their own, and keep the best w of both.

        Args:
            query: [B, H, T, d].
            key, value: [B, K, T, d].
            score: [B, K, T], `PADDING_SCORE` for padding.
            scale: of q.k.

        Returns:
            [B, H, T, d].
        """
        if not self.is_initialized:
            self.lazy_initialization(key, value)
        output, buffers, self.num_kept = attend_with_buffers(
            query,
            key,
            value,
            score,
            self.keep_window_size,
            scale,
            buffers=self._buffers(),
            num_kept=self.num_kept,
            start=self.cumulative_length,
        )
        self._set_buffers(buffers)
        self.cumulative_length += query.shape[2]
        return output

    def has_real_key(self) -> torch.Tensor | None:
        """Tell for each row, [B, 1] bool, whether a key that is not padding is kept; None for an empty cache."""
        if self.num_kept == 0:
            return None
        return (self._kept().score > PADDING_SCORE / 2).any(dim=-1)[:, :1]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Refuse: which keys stay depends on their scores, which `attend` takes."""
        raise TypeError("DynamicMaskCache serves Doge models of small_doge only; use DynamicCache with other models")

    def get_seq_length(self) -> int:
        """Return the number of tokens seen, evicted ones included."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset of a mask over all tokens seen and to come."""
        return self.cumulative_length + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: there is no limit to the length, only to what is kept."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.keys = self.values = self.scores = self.index = None  # type: ignore[assignment]
        self.is_initialized = False
        self.cumulative_length = self.num_kept = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last `-tokens_to_remove` tokens.

        Raises:
            UserError: a positive number.
            RuntimeError: keys have been evicted, and cannot come back.
        """
        if tokens_to_remove > 0:
            raise UserError(f"crop({tokens_to_remove}): pass a negative number of tokens to remove")
        if tokens_to_remove == 0 or not self.is_initialized:
            return
        if not self.is_croppable:
            raise RuntimeError(
                f"cannot crop: {self.cumulative_length} tokens went through a cache of keep_window_size="
                f"{self.keep_window_size}, and evicted keys cannot come back. Use DynamicCache to roll back"
            )
        self.num_kept = max(0, self.num_kept + tokens_to_remove)
        self.cumulative_length = self.num_kept
        self._set_buffers(self._kept())

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Rearrange the batch for beam search."""
        self._select_batch(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the given rows of the batch."""
        self._select_batch(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        if self.is_initialized:
            self._select_batch(torch.arange(len(self.keys)).repeat_interleave(repeats))

    def _select_batch(self, rows: torch.Tensor) -> None:
        if self.is_initialized:
            self._set_buffers(KeptKeys(*(x.index_select(0, rows.to(x.device)) for x in self._kept().tensors())))

    def _buffers(self) -> KeptKeys:
        return KeptKeys(self.keys, self.values, self.scores, self.index)

    def _kept(self) -> KeptKeys:
        return self._buffers().view(0, self.num_kept)

    def _set_buffers(self, buffers: KeptKeys) -> None:
        self.keys, self.values, self.scores, self.index = buffers.tensors()


class DynamicMaskCache(Cache):
    """Cache of a Doge model whose size does not grow beyond `keep_window_size` keys per key-value head.

    Args:
        config: a `DogeConfig`; `num_hidden_layers` layers and `keep_window_size` are read.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(layers=[DynamicMaskLayer(config.keep_window_size) for _ in range(config.num_hidden_layers)])

    @property
    def max_cache_len(self) -> int:
        """Return -1: there is no limit to the length (prefix tuning of `peft` asks)."""
        return -1

    @property
    def nbytes(self) -> int:
        """Count the bytes of all buffers, empty slots included."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values, layer.scores, layer.index)]
        return sum(t.untyped_storage().nbytes() for t in tensors if t is not None)
