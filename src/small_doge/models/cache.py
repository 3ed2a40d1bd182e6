"""A cache that keeps the best w keys per key-value head, and is exact for any length.

The score of a key depends on its token alone, so a key that is not among the w best of a prefix is never again among
them: what falls out is not needed (docs/architecture.md). Shapes as in `small_doge.ops.masking`.
"""

from typing import Any

import torch
from transformers import Cache, CacheLayerMixin

from ..ops.masking import PADDING_SCORE, KeptKeys, round_for_ranking
from ..ops.streaming import streaming_attention
from ..utils.errors import UserError


class DynamicMaskLayer(CacheLayerMixin):
    """One layer's keys, in buffers that grow up to w slots and are then overwritten in place."""

    is_sliding = False

    def __init__(self, keep_window_size: int) -> None:
        super().__init__()
        self.keep_window_size = keep_window_size
        self.cumulative_length = 0
        self.num_kept = 0
        self.scores: torch.Tensor | None = None
        self.index: torch.Tensor | None = None

    @property
    def is_croppable(self) -> bool:
        """Whether nothing has been evicted yet."""
        return self.cumulative_length <= self.keep_window_size

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Empty buffers with the type, device and head count of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        score_dtype = torch.promote_types(self.dtype, torch.float32)
        self.scores = torch.empty(self.keys.shape[:3], dtype=score_dtype, device=self.device)
        self.index = torch.empty(self.keys.shape[:3], dtype=torch.int64, device=self.device)
        self.is_initialized = True

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, score: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Store new keys and answer new queries.

        Args:
            query: [B, H, T, d]. key, value: [B, K, T, d]. score: [B, K, T], `PADDING_SCORE` for padding.
            scale: of q.k.

        Returns:
            [B, H, T, d].
        """
        if not self.is_initialized:
            self.lazy_initialization(key, value)
        if query.shape[2] == 1 and not torch.is_grad_enabled():
            self._store_one(key, value, score)
            keys, values, scores, _ = self._views()
            return _attend_one(query, keys, values, scores, scale)
        past = None
        if self.num_kept > 0:
            past = KeptKeys(*self._views())
            past = past.select(past.index.sort(dim=-1).indices)  # overwritten slots are out of order
        output, kept = streaming_attention(
            query, key, value, score, self.keep_window_size, scale, past=past, start=self.cumulative_length
        )
        self.keys, self.values, self.scores, self.index = kept.key, kept.value, kept.score, kept.index
        self.num_kept = kept.key.shape[2]
        self.cumulative_length += query.shape[2]
        return output

    def _views(self) -> tuple[torch.Tensor, ...]:
        kept = slice(0, self.num_kept)
        return self.keys[:, :, kept], self.values[:, :, kept], self.scores[:, :, kept], self.index[:, :, kept]

    def _store_one(self, key: torch.Tensor, value: torch.Tensor, score: torch.Tensor) -> None:
        """Append while there is room; afterwards overwrite the worst key, unless the new one is worse still."""
        index = torch.full_like(score, self.cumulative_length, dtype=torch.int64)
        self.cumulative_length += 1
        if self.num_kept < self.keep_window_size:
            self._reserve(self.num_kept + 1)
            end = self.num_kept + 1
            for buffer, new in self._buffers(key, value, score, index):
                buffer[:, :, self.num_kept : end] = new
            self.num_kept += 1
            return
        ranked = round_for_ranking(self.scores)
        lowest = ranked.amin(dim=-1, keepdim=True)
        oldest_first = self.index.masked_fill(ranked > lowest, torch.iinfo(torch.int64).max)
        worst = oldest_first.argmin(dim=-1, keepdim=True)
        better = round_for_ranking(score) >= lowest  # among equals the more recent wins
        for buffer, new in self._buffers(key, value, score, index):
            slot = worst if buffer.dim() == 3 else worst.unsqueeze(-1).expand_as(new)
            keep_new = better if buffer.dim() == 3 else better.unsqueeze(-1)
            buffer.scatter_(2, slot, torch.where(keep_new, new, buffer.gather(2, slot)))

    def _buffers(self, *new: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip((self.keys, self.values, self.scores, self.index), new, strict=True))

    def _reserve(self, needed: int) -> None:
        """Grow the buffers by doubling, up to w slots; never write into tensors that others may hold."""
        capacity = self.keys.shape[2]
        if needed <= capacity:
            return
        new_capacity = min(self.keep_window_size, max(needed, 2 * capacity, 64))
        for name in ("keys", "values", "scores", "index"):
            old = getattr(self, name)
            grown = old.new_zeros((*old.shape[:2], new_capacity, *old.shape[3:]))
            grown[:, :, :capacity] = old
            setattr(self, name, grown)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Not available: which keys stay depends on their scores, which `attend` takes."""
        raise TypeError("DynamicMaskCache serves Doge models of small_doge only; use DynamicCache with other models")

    def get_seq_length(self) -> int:
        """Tokens seen, evicted ones included."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the mask over all tokens seen and to come."""
        return self.cumulative_length + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is no limit to the length, only to what is kept."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.keys = self.values = self.scores = self.index = None
        self.is_initialized = False
        self.cumulative_length = self.num_kept = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last `-tokens_to_remove` tokens.

        Raises:
            ValueError: a positive number.
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
        self.keys, self.values, self.scores, self.index = self._views()

    def _select_batch(self, rows: torch.Tensor) -> None:
        if self.is_initialized:
            views = [x.index_select(0, rows.to(x.device)) for x in self._views()]
            self.keys, self.values, self.scores, self.index = views

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Rearrange the batch for beam search."""
        self._select_batch(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the named rows of the batch."""
        self._select_batch(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        if self.is_initialized:
            self._select_batch(torch.arange(len(self.keys)).repeat_interleave(repeats))

    def has_real_key(self) -> torch.Tensor | None:
        """[B, 1] bool: whether a key that is not padding is kept; None for an empty cache."""
        if self.num_kept == 0:
            return None
        return (self._views()[2] > PADDING_SCORE / 2).any(dim=-1)[:, :1]


class DynamicMaskCache(Cache):
    """Cache of a Doge model whose size does not grow beyond `keep_window_size` keys per key-value head.

    Args:
        config: a `DogeConfig`; `num_hidden_layers` layers and `keep_window_size` are read.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(layers=[DynamicMaskLayer(config.keep_window_size) for _ in range(config.num_hidden_layers)])

    @property
    def max_cache_len(self) -> int:
        """-1: there is no limit to the length (prefix tuning of `peft` asks)."""
        return -1

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values, layer.scores, layer.index)]
        return sum(t.untyped_storage().nbytes() for t in tensors if t is not None)


def _attend_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, score: torch.Tensor, scale: float
) -> torch.Tensor:
    """One query per row over all keys at hand: [B, H, 1, d]. Groups share their keys without a copy."""
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, size)
    logits = (grouped * scale) @ key.transpose(-1, -2)
    weights = torch.softmax(logits.to(score.dtype) + score.unsqueeze(2), dim=-1).to(value.dtype)
    return (weights @ value).reshape(batch, heads, 1, size)
