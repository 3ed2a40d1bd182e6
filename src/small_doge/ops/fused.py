"""Fused causal attention that carries the score as extra key dimensions (T <= w)."""

import torch
import torch.nn.functional as F


# Head sizes that fused kernels like are multiples of 8; what is left over carries the score for free.
ALIGNMENT = 8
# Parts that hold a float32 score without loss: bfloat16 has 8 significant bits, float16 has 11.
SCORE_PARTS = {torch.float32: 1, torch.float64: 1, torch.bfloat16: 3, torch.float16: 3}


def extend_query(query: torch.Tensor, scale: float) -> torch.Tensor:
    """[..., d] -> [..., d']: the scaled query, ones that meet the parts of the score, and zeros up to d'."""
    size = query.shape[-1]
    parts = SCORE_PARTS[query.dtype]
    extended = F.pad(query * scale, (0, parts), value=1.0)
    return F.pad(extended, (0, -(size + parts) % ALIGNMENT))


def extend_key(key: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """[..., d] -> [..., d']: the key and its score, split into parts that the key's type holds exactly."""
    parts, rest = [], score.clamp(min=torch.finfo(key.dtype).min / 4)
    for _ in range(SCORE_PARTS[key.dtype]):
        part = rest.to(key.dtype)
        parts.append(part)
        # The remainder carries no gradient: the first part has it all.
        rest = (rest - part).detach()
    extended = torch.cat([key, torch.stack(parts, dim=-1)], dim=-1)
    return F.pad(extended, (0, -extended.shape[-1] % ALIGNMENT))


def fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
    is_causal: bool = True,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention with the score as a bias per key, by PyTorch's fused kernels; no bias or causal mask exists in memory.

    q' = [scale * q, 1], k' = [k, score]: q'.k' is the biased score, and its gradient is right for the score as well.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, N, d].
        score: [B, K, N], `PADDING_SCORE` for padded keys.
        mask: [B, K or 1, T, N] bool or None, shared by the query heads of a group.

    Returns:
        [B, H, T, d].
    """
    groups = query.shape[1] // key.shape[1]
    if mask is not None and mask.shape[1] == key.shape[1] != 1:
        mask = mask.repeat_interleave(groups, dim=1)
    query_ext, key_ext = (
        extend_query(query, scale),
        extend_key(key, score.to(torch.promote_types(score.dtype, torch.float32))),
    )
    value_ext = F.pad(value, (0, key_ext.shape[-1] - value.shape[-1]))
    output = F.scaled_dot_product_attention(
        query_ext,
        key_ext,
        value_ext,
        attn_mask=mask,
        is_causal=is_causal,
        scale=1.0,
        enable_gqa=groups > 1,
        dropout_p=dropout,
    )
    return output[..., : value.shape[-1]]
