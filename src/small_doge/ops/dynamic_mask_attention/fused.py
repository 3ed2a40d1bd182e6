"""Fused causal attention that carries the score as extra key dimensions, for documents of at most w tokens.

Shapes: B batch, T queries, N keys, H query heads, K key-value heads, d head dimension, d' the extended one.
"""

import torch
import torch.nn.functional as F


# Fused kernels want head dimensions that are multiples of 8; the score rides in the room that padding to one leaves.
ALIGNMENT = 8
# Key dimensions that carry the score. It is float32, of 24 significant bits, and a single dimension of a key in half
# precision would round it (in bfloat16 by up to 0.016 at a score of 4, in every logit of that key). Three parts, each the
# rounding of what the parts before it left, hold it whole: a part has 8 bits in bfloat16 and 11 in float16.
SCORE_PARTS = {torch.float32: 1, torch.float64: 1, torch.bfloat16: 3, torch.float16: 3}
FLASH_TYPES = (torch.bfloat16, torch.float16)


def extend_query(query: torch.Tensor, scale: float) -> torch.Tensor:
    """Scale queries [..., d] and append the ones that meet the parts of the score, and zeros up to d'."""
    head_dim = query.shape[-1]
    parts = SCORE_PARTS[query.dtype]
    extended = F.pad(query * scale, (0, parts), value=1.0)
    return F.pad(extended, (0, -(head_dim + parts) % ALIGNMENT))


def extend_key(key: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """Append the scores [...] to keys [..., d], in parts that the keys' type holds exactly, and zeros up to d'."""
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
    """Attend with the score as a bias per key, by PyTorch's fused kernels.

    A bias given as a mask would be a [B, H, T, N] tensor, and would rule out the fastest kernels. One more key
    dimension says the same: with q' = [scale * q, 1] and k' = [k, score], q'.k' = scale * q.k + score, and autograd
    gives the score its gradient. Neither a bias nor a causal mask exists in memory.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, N, d].
        score: [B, K, N], `PADDING_SCORE` for padded keys.
        scale: of q.k.
        mask: [B, K or 1, T, N] bool or None, shared by the query heads of a group.
        is_causal: let each query see the keys up to its own position; only for T = N without a mask.
        dropout: probability of dropping an attention weight.

    Returns:
        [B, H, T, d].
    """
    groups, head_dim = query.shape[1] // key.shape[1], value.shape[-1]
    if mask is not None and mask.shape[1] == key.shape[1] != 1:
        mask = mask.repeat_interleave(groups, dim=1)
    key = extend_key(key, score.to(torch.promote_types(score.dtype, torch.float32)))
    value = F.pad(value, (0, key.shape[-1] - head_dim))
    if groups > 1 and query.is_cuda and (mask is not None or query.dtype not in FLASH_TYPES):
        # On CUDA only the flash kernel shares keys among a group's heads, and it takes neither masks nor float32;
        # without a copy per head PyTorch would fall back to products that hold all T x N weights.
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        groups = 1
    output = F.scaled_dot_product_attention(
        extend_query(query, scale),
        key,
        value,
        attn_mask=mask,
        is_causal=is_causal,
        scale=1.0,  # the query is scaled already, and the score must not be
        enable_gqa=groups > 1,
        dropout_p=dropout,
    )
    return output[..., :head_dim]
