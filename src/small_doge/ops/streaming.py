"""Dynamic mask attention in chunks: time O(T * (w + C)), memory O(w + C) beside the inputs, exact for any length."""

import torch

from .fused import fused_attention
from .masking import KeptKeys, plan_chunk


def choose_chunk_size(keep_window_size: int) -> int:
    """Queries per chunk: large enough for efficient products, small beside the window."""
    return max(32, min(512, keep_window_size // 8))


def streaming_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    keep_window_size: int,
    scale: float,
    past: KeptKeys | None = None,
    start: int = 0,
    chunk_size: int | None = None,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, KeptKeys]:
    """Walk the queries in chunks; each sees the keys kept so far and its own chunk's.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        score: [B, K, T], `PADDING_SCORE` for padded keys.
        past: keys kept from an earlier call, at most w.
        start: the index in the sequence of the first query.

    Returns:
        Output [B, H, T, d], and the at most w keys that later queries can need.
    """
    num_tokens = query.shape[2]
    chunk_size = chunk_size or choose_chunk_size(keep_window_size)
    # A tensor of its own, not an expanded view: a cache that takes it over writes into it.
    index = torch.arange(start, start + num_tokens, device=key.device).expand(*score.shape[:2], -1).contiguous()
    outputs, first = [], 0
    kept = past
    if kept is None:  # the first w queries see all before them: plain causal attention
        first = min(keep_window_size, num_tokens)
        own = slice(0, first)
        kept = KeptKeys(key[:, :, own], value[:, :, own], score[:, :, own], index[:, :, own])
        outputs.append(fused_attention(query[:, :, own], *_parts(kept), scale=scale, dropout=dropout))
    while first < num_tokens:
        last = min(first + chunk_size, num_tokens)
        own = slice(first, last)
        candidates = kept.append(KeptKeys(key[:, :, own], value[:, :, own], score[:, :, own], index[:, :, own]))
        stays, leaves_at = plan_chunk(candidates.score, last - first, keep_window_size)
        mask = _chunk_mask(candidates.key.shape[2], last - first, leaves_at, query.device)
        outputs.append(
            fused_attention(
                query[:, :, own], *_parts(candidates), scale=scale, mask=mask, is_causal=False, dropout=dropout
            )
        )
        kept = candidates if leaves_at is None else candidates.select(stays)
        first = last
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], kept


def _parts(keys: KeptKeys) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return keys.key, keys.value, keys.score


def _chunk_mask(
    num_keys: int, num_queries: int, leaves_at: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """[B, K, C, M] bool (or [1, 1, C, M] when no key leaves): key j is seen by query i when j <= i < leaves_at[j]."""
    query_offset = torch.arange(num_queries, device=device)[:, None]
    key_offset = torch.arange(num_keys, device=device) - (num_keys - num_queries)
    causal = key_offset <= query_offset
    if leaves_at is None:
        return None if num_queries == 1 else causal[None, None]
    return causal & (query_offset < leaves_at[:, :, None, :])
