"""Generation: one query per row, and buffers that hold the best w keys and are overwritten in place.

Shapes: B batch, H query heads, K key-value heads, G = H / K, d head dimension, M available keys, w `keep_window_size`.
"""

import torch

from .masking import KeptKeys, round_for_ranking
from .streaming import streaming_attention


# Slots of the first buffers that grow; then the number doubles.
MIN_SLOTS = 64


def empty_buffers(key: torch.Tensor, value: torch.Tensor) -> KeptKeys:
    """Make buffers without slots, of the batch, heads, types and device of keys and values [B, K, T, d]."""
    key, value = key[:, :, :0], value[:, :, :0]
    score = torch.empty(key.shape[:3], dtype=torch.promote_types(key.dtype, torch.float32), device=key.device)
    return KeptKeys(key, value, score, torch.empty(key.shape[:3], dtype=torch.int64, device=key.device))


def attend_with_buffers(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    keep_window_size: int,
    scale: float,
    buffers: KeptKeys,
    num_kept: int,
    start: int,
) -> tuple[torch.Tensor, KeptKeys, int]:
    """Attend from new queries to the kept keys and their own, and keep the best w of both.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        score: [B, K, T], `PADDING_SCORE` for padded keys.
        keep_window_size: w.
        scale: of q.k.
        buffers: slots, of which the first `num_kept` hold keys, in any order. They may be written into.
        num_kept: keys in the buffers.
        start: the position in the sequence of the first query.

    Returns:
        Output [B, H, T, d], the buffers, and the number of keys that they hold now.
    """
    if query.shape[2] == 1 and not torch.is_grad_enabled():
        new = KeptKeys(key, value, score, torch.full_like(score, start, dtype=torch.int64))
        buffers, num_kept = store_key(buffers, num_kept, new, keep_window_size)
        return attend_one(query, buffers.view(0, num_kept), scale), buffers, num_kept
    past = None
    if num_kept > 0:
        past = buffers.view(0, num_kept)
        past = past.select(past.index.sort(dim=-1).indices)  # overwritten slots are out of order
    output, kept = streaming_attention(query, key, value, score, keep_window_size, scale, past=past, start=start)
    if past is None and kept.num_keys == query.shape[2] == keep_window_size:
        # Still views of the caller's tensors, and full: the next key would be written into them.
        kept = KeptKeys(*(x.clone() for x in kept.tensors()))
    return output, kept, kept.num_keys


def attend_one(query: torch.Tensor, kept: KeptKeys, scale: float) -> torch.Tensor:
    """Attend from one query per row, [B, H, 1, d], to all stored keys; groups share their keys without a copy."""
    batch, heads, _, head_dim = query.shape
    grouped = query.reshape(batch, kept.key.shape[1], -1, head_dim)  # [B, K, G, d]
    logits = (grouped * scale) @ kept.key.transpose(-1, -2)  # [B, K, G, M]
    weights = torch.softmax(logits.to(kept.score.dtype) + kept.score.unsqueeze(2), dim=-1).to(kept.value.dtype)
    return (weights @ kept.value).reshape(batch, heads, 1, head_dim)


def store_key(buffers: KeptKeys, num_kept: int, new: KeptKeys, keep_window_size: int) -> tuple[KeptKeys, int]:
    """Append one key per head while there is room; afterwards overwrite the worst, unless the new one is worse still.

    Args:
        buffers: slots, of which the first `num_kept` hold keys.
        num_kept: keys in the buffers.
        new: one key [B, K, 1, d].
        keep_window_size: w.

    Returns:
        The buffers, new ones where they had to grow, and the number of keys they hold.
    """
    if num_kept < keep_window_size:
        buffers = _reserve(buffers, num_kept + 1, keep_window_size)
        for buffer, entry in zip(buffers.tensors(), new.tensors(), strict=True):
            buffer[:, :, num_kept : num_kept + 1] = entry
        return buffers, num_kept + 1
    # The order of `rank_keys` read from its end: the lowest rounded score, and among equals the oldest key.
    ranked = round_for_ranking(buffers.score)
    lowest = ranked.amin(dim=-1, keepdim=True)
    oldest_first = buffers.index.masked_fill(ranked > lowest, torch.iinfo(torch.int64).max)
    worst = oldest_first.argmin(dim=-1, keepdim=True)
    better = round_for_ranking(new.score) >= lowest  # among equals the more recent key stays
    for buffer, entry in zip(buffers.tensors(), new.tensors(), strict=True):
        slot = worst if buffer.dim() == 3 else worst.unsqueeze(-1).expand_as(entry)
        takes_place = better if buffer.dim() == 3 else better.unsqueeze(-1)
        buffer.scatter_(2, slot, torch.where(takes_place, entry, buffer.gather(2, slot)))
    return buffers, num_kept


def _reserve(buffers: KeptKeys, needed: int, keep_window_size: int) -> KeptKeys:
    """Grow buffers to `needed` slots by doubling, up to w, in new tensors: views that others hold stay as they are."""
    slots = buffers.num_keys
    if needed <= slots:
        return buffers
    new_slots = min(keep_window_size, max(needed, 2 * slots, MIN_SLOTS))
    grown = []
    for old in buffers.tensors():
        buffer = old.new_zeros((*old.shape[:2], new_slots, *old.shape[3:]))
        buffer[:, :, :slots] = old
        grown.append(buffer)
    return KeptKeys(*grown)
