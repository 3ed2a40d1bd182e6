"""Dynamic mask attention in chunks: time O(T * (w + C)), memory O(w + C) beside the inputs, exact for any length.

Shapes: B batch, T tokens, H query heads, K key-value heads, d head dimension, M available keys, w `keep_window_size`,
C queries in a chunk.
"""

import math

import torch

from .fused import fused_attention
from .masking import KeptKeys, plan_chunk


# Planning a chunk counts C x C pairs per head: 2**24 of them take 64 MB, a few times over.
PAIRS_BUDGET = 2**24


def choose_chunk_size(keep_window_size: int, score: torch.Tensor) -> int:
    """Choose the queries per chunk: enough for efficient matrix products, few beside the window.

    A GPU waits for the many small steps of a chunk, so there a chunk is as long as the window, where memory allows it.

    Args:
        keep_window_size: w.
        score: [B, K, T], the scores of the keys.
    """
    if not score.is_cuda:
        return max(32, min(512, keep_window_size // 8))
    heads = max(1, score.shape[0] * score.shape[1])
    return max(64, min(2048, max(256, keep_window_size), math.isqrt(PAIRS_BUDGET // heads)))


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
    """Attend chunk by chunk; each chunk of queries sees the keys kept so far and its own.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        score: [B, K, T], `PADDING_SCORE` for padded keys.
        keep_window_size: w.
        scale: of q.k.
        past: keys kept from an earlier call, at most w, in the order of the sequence.
        start: the position in the sequence of the first query.
        chunk_size: C; `choose_chunk_size` if None. It changes time and memory, never the result.
        dropout: probability of dropping an attention weight.

    Returns:
        Output [B, H, T, d], and the at most w keys that later queries can need.
    """
    num_tokens = query.shape[2]
    chunk_size = chunk_size or choose_chunk_size(keep_window_size, score)
    # Contiguous: a cache that takes it over writes into it, and the rows of an expanded view share their memory.
    index = torch.arange(start, start + num_tokens, device=key.device).expand(*score.shape[:2], -1).contiguous()
    new = KeptKeys(key, value, score, index)
    outputs, first = [], 0
    kept = past
    if kept is None:  # the first w queries see all before them: plain causal attention
        first = min(keep_window_size, num_tokens)
        kept = new.view(0, first)
        outputs.append(_attend(query[:, :, :first], kept, scale, dropout, is_causal=True))
    # All that a chunk needs of the tokens before it are the w keys kept at its start: a key that was dropped has w
    # better ones, and for every later query it still has them.
    while first < num_tokens:
        last = min(first + chunk_size, num_tokens)
        candidates = kept.append(new.view(first, last))
        stays, leaves_at = plan_chunk(candidates.score, last - first, keep_window_size)
        mask = _chunk_mask(candidates.num_keys, last - first, leaves_at, query.device)
        outputs.append(_attend(query[:, :, first:last], candidates, scale, dropout, mask=mask))
        kept = candidates if leaves_at is None else candidates.select(stays)
        first = last
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], kept


def _attend(
    query: torch.Tensor,
    keys: KeptKeys,
    scale: float,
    dropout: float,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> torch.Tensor:
    return fused_attention(
        query, keys.key, keys.value, keys.score, scale, mask=mask, is_causal=is_causal, dropout=dropout
    )


def _chunk_mask(
    num_keys: int, num_queries: int, leaves_at: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """Build the mask [B, K, C, M] of a chunk: query i sees key j when j <= i < leaves_at[j].

    When no key leaves, it is [1, 1, C, M], or None for a single query, which sees every key.
    """
    query_offset = torch.arange(num_queries, device=device)[:, None]
    key_offset = torch.arange(num_keys, device=device) - (num_keys - num_queries)  # kept keys: below 0
    causal = key_offset <= query_offset
    if leaves_at is None:
        return None if num_queries == 1 else causal[None, None]
    return causal & (query_offset < leaves_at[:, :, None, :])
