"""The oracle: dynamic mask attention written as its definition reads, with dense masks and no shortcut.

Shapes: B batch, T queries, N keys, H query heads, K key-value heads, d head dimension.
"""

import torch

from .masking import round_for_ranking


def select_keys(score: torch.Tensor, allowed: torch.Tensor, keep_window_size: int) -> torch.Tensor:
    """Select the kept set S of every query (arXiv:2412.11834; the order of ties is ours).

    Args:
        score: [B, K, N], one score per key.
        allowed: [B, K or 1, T, N] bool, the keys a query may look at.
        keep_window_size: w.

    Returns:
        [B, K, T, N] bool: the w allowed keys with the largest score in bfloat16, the more recent first among equals.
    """
    num_keys = score.shape[-1]
    ranked = round_for_ranking(score)[:, :, None, :].masked_fill(~allowed, float("-inf"))
    newest_first = ranked.flip(-1).sort(dim=-1, descending=True, stable=True).indices
    best = (num_keys - 1 - newest_first)[..., :keep_window_size]
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, best, True) & allowed


def reference_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    allowed: torch.Tensor,
    keep_window_size: int,
    scale: float,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the softmax over the kept keys of (scale * q.k + score), times v, in O(T * N) time and memory.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, N, d].
        score: [B, K, N].
        allowed: [B, K or 1, T, N] bool, the keys a query may look at.
        keep_window_size: w.
        scale: of q.k.
        dropout: probability of dropping an attention weight.

    Returns:
        Output [B, H, T, d] and weights [B, H, T, N]. A query without any key yields zeros.
    """
    groups = query.shape[1] // key.shape[1]
    kept = select_keys(score, allowed, keep_window_size).repeat_interleave(groups, dim=1)
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        logits = query.to(dtype) @ key.to(dtype).repeat_interleave(groups, dim=1).transpose(-1, -2) * scale
        logits = logits + score.to(dtype).repeat_interleave(groups, dim=1)[:, :, None, :]
        has_key = kept.any(dim=-1, keepdim=True)
        # The lowest finite number keeps rows without a key free of NaN, in the gradient as well.
        logits = logits.masked_fill(~kept, torch.finfo(dtype).min)
        weights = torch.softmax(logits, dim=-1) * (kept & has_key)
        weights = torch.nn.functional.dropout(weights, p=dropout, training=dropout > 0)
        output = weights @ value.to(dtype).repeat_interleave(groups, dim=1)
    return output.to(query.dtype), weights.to(query.dtype)
