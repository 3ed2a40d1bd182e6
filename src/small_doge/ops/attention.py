"""Dynamic mask attention: one call, several backends that agree (math of arXiv:2412.11834 with a total order of keys)."""

from typing import Any

import torch
import torch.nn.functional as F

from ..utils.errors import UserError
from .flex import flex_dynamic_mask_attention
from .fused import fused_attention
from .masking import PADDING_SCORE, DocumentGroup, group_documents
from .reference import reference_attention
from .streaming import streaming_attention


BACKENDS = ("auto", "reference", "sdpa", "streaming", "flex")


def compute_scores(dt: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Compute how much each key is worth keeping: exp(A * softplus(dt)), in float32 or better, under autocast too.

    Args:
        dt: [B, T, K], the projection W_dt v of each token's value states.
        A: [K].

    Returns:
        [B, K, T], positive.
    """
    dtype = torch.promote_types(dt.dtype, torch.float32)
    with torch.autocast(dt.device.type, enabled=False):
        return torch.exp(A.to(dtype) * F.softplus(dt.to(dtype))).transpose(1, 2)


def dynamic_mask_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    *,
    keep_window_size: int,
    padding_mask: torch.Tensor | None = None,
    document_ids: torch.Tensor | None = None,
    documents: list[DocumentGroup] | None = None,
    scale: float | None = None,
    backend: str = "auto",
    chunk_size: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Causal attention over the `keep_window_size` keys with the largest score, which also biases the softmax.

    For query i: S = the w keys j <= i with the largest score (the more recent first among equals); the output is the
    softmax over S of (scale * q.k + score), times v.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d] with H a multiple of K.
        score: [B, K, T], positive, from `compute_scores`; float32 whatever the other types.
        keep_window_size: w.
        padding_mask: [B, T], true for real tokens. Padded keys are in no S; a query without any key yields zeros.
        document_ids: [B, T]; where the number changes, a new document begins, and S never crosses that.
        documents: `group_documents(document_ids)`, if made before: it is the same for all layers.
        scale: 1 / sqrt(d) if None.
        backend: `reference` (dense), `sdpa` (T <= w, by the longest document), `streaming` (linear in T), `flex`
            (FlexAttention), or `auto`: `sdpa` where it applies, else `streaming`.
        chunk_size: queries per chunk of `streaming`.
        dropout: probability of dropping an attention weight.

    Returns:
        [B, H, T, d].

    Raises:
        ValueError: shapes that don't fit, an unknown backend, or `sdpa` beyond the window.
    """
    _check_arguments(query, key, score, keep_window_size, backend)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if backend == "reference":
        allowed = causal_mask(query.shape[2], padding_mask, document_ids, query.device)
        return reference_attention(query, key, value, score, allowed, keep_window_size, scale, dropout)[0]
    if padding_mask is not None:
        padding_mask = padding_mask.bool()
        score = score.masked_fill(~padding_mask[:, None, :], PADDING_SCORE)
    if backend == "flex":
        if dropout:
            raise UserError(
                f"attention_dropout={dropout} is not supported by the flex backend; use sdpa or set it to 0"
            )
        output = flex_dynamic_mask_attention(
            query, key, value, score, keep_window_size, document_ids, scale, chunk_size
        )
    else:
        parts, options = (query, key, value, score), (keep_window_size, scale, backend, chunk_size, dropout)
        if document_ids is None:
            output = _attend_group(parts, *options)
        else:
            output = _attend_documents(parts, documents or group_documents(document_ids), *options)
    if padding_mask is not None:
        output = zero_rows_without_keys(output, padding_mask, document_ids)
    return output


def causal_mask(
    num_tokens: int, padding_mask: torch.Tensor | None, document_ids: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """[B or 1, 1, T, T] bool: earlier or same position, real token, same document."""
    mask = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()[None, None]
    if padding_mask is not None:
        mask = mask & padding_mask.bool()[:, None, None, :]
    if document_ids is not None:
        mask = mask & (document_ids[:, None, :, None] == document_ids[:, None, None, :])
    return mask


def zero_rows_without_keys(
    output: torch.Tensor,
    padding_mask: torch.Tensor,
    document_ids: torch.Tensor | None = None,
    has_past: torch.Tensor | None = None,
) -> torch.Tensor:
    """Zero the queries [B, H, T, d] that have only padding before them; `has_past` [B, 1]: a real key came earlier."""
    seen = padding_mask.long().cumsum(dim=-1)
    if document_ids is not None:  # count from the start of each document
        starts = torch.ones_like(padding_mask, dtype=torch.bool)
        starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
        before = seen - padding_mask.long()
        seen = seen - before.masked_fill(~starts, 0).cummax(dim=-1).values
    has_key = seen > 0
    if has_past is not None:
        has_key = has_key | has_past
    return output.masked_fill(~has_key[:, None, :, None], 0.0)


def _attend_group(
    parts: tuple[torch.Tensor, ...],
    keep_window_size: int,
    scale: float,
    backend: str,
    chunk_size: int | None,
    dropout: float,
) -> torch.Tensor:
    """Attention of a batch of single documents; `parts` are query, key, value and score."""
    query, key, value, score = parts
    longest = query.shape[2]
    if backend == "sdpa" and longest > keep_window_size:
        raise UserError(
            f"backend='sdpa' needs documents of at most keep_window_size={keep_window_size} tokens, got {longest}; "
            "use backend='streaming' or 'auto'"
        )
    if longest <= keep_window_size and backend != "streaming":
        return fused_attention(query, key, value, score, scale=scale, dropout=dropout)
    return streaming_attention(
        query, key, value, score, keep_window_size, scale, chunk_size=chunk_size, dropout=dropout
    )[0]


def _attend_documents(parts: tuple[torch.Tensor, ...], documents: list[DocumentGroup], *options: Any) -> torch.Tensor:
    """Group by group, never with a T x T mask. Padding on the right of a document is in nobody's past."""
    batch, heads, num_tokens, size = parts[0].shape
    flat = [x.transpose(1, 2).flatten(0, 1) for x in parts]  # [B * T, heads, ...]
    outputs, order = [], []
    for group in documents:
        picked = (x[group.tokens].transpose(1, 2) for x in flat)
        out = _attend_group(tuple(picked), *options)
        outputs.append(out.transpose(1, 2)[group.real])
        order.append(group.tokens[group.real])
    joined = torch.cat(outputs)
    back = torch.empty_like(order_all := torch.cat(order))
    back[order_all] = torch.arange(len(order_all), device=order_all.device)
    return joined[back].view(batch, num_tokens, heads, size).transpose(1, 2)


def _check_arguments(
    query: torch.Tensor, key: torch.Tensor, score: torch.Tensor, keep_window_size: int, backend: str
) -> None:
    if backend not in BACKENDS:
        raise UserError(f"backend={backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if keep_window_size < 1:
        raise UserError(f"keep_window_size={keep_window_size} must be at least 1")
    if query.shape[1] % key.shape[1] != 0:
        raise UserError(f"{query.shape[1]} query heads are not a multiple of {key.shape[1]} key-value heads")
    if score.shape != key.shape[:3]:
        raise UserError(f"score has shape {tuple(score.shape)}, expected {tuple(key.shape[:3])}: one number per key")
