"""Checks the arguments of attention, chooses a backend and runs it, document by document where rows are packed.

Shapes: B batch, T tokens, H query heads, K key-value heads, d head dimension, w `keep_window_size`, n documents in a
group, L tokens of its longest.
"""

from collections.abc import Callable
from functools import partial

import torch

from ...utils.errors import UserError
from ...utils.suggest import unknown_name_message
from .documents import DocumentGroup, group_documents
from .flex import flex_dynamic_mask_attention
from .fused import fused_attention
from .masking import PADDING_SCORE, causal_mask, zero_rows_without_keys
from .reference import reference_attention
from .streaming import streaming_attention


BACKENDS = ("auto", "reference", "fused", "streaming", "flex")


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
    """Attend causally to the `keep_window_size` keys with the largest score, which also biases the softmax.

    For query i, let S be the w keys j <= i with the largest score, the more recent first among equals. The output is
    the softmax over S of (scale * q.k + score), times v (arXiv:2412.11834; the order of ties is ours).

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d] with H a multiple of K.
        score: [B, K, T], positive, from `compute_scores`; float32 whatever the other types.
        keep_window_size: w.
        padding_mask: [B, T], true for real tokens. Padded keys are in no S; a query without any key yields zeros.
        document_ids: [B, T]; where the number changes, a new document begins, and S never crosses that.
        documents: `group_documents(document_ids)`, if made before: it is the same for all layers.
        scale: of q.k; 1 / sqrt(d) if None.
        backend: one of `BACKENDS`. `auto` takes `fused` for documents of at most w tokens and `streaming` for longer
            ones; the table in `small_doge.ops.dynamic_mask_attention` says what the others are for.
        chunk_size: queries per chunk of `streaming` and `flex`.
        dropout: probability of dropping an attention weight.

    Returns:
        [B, H, T, d].

    Raises:
        UserError: shapes that do not fit, an unknown backend, `fused` beyond the window, or `flex` with dropout.
    """
    _check_arguments(query, key, score, keep_window_size, backend, dropout)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if backend == "reference":
        allowed = causal_mask(query.shape[2], padding_mask, document_ids, query.device)
        return reference_attention(query, key, value, score, allowed, keep_window_size, scale, dropout)[0]
    if padding_mask is not None:
        padding_mask = padding_mask.bool()
        score = score.masked_fill(~padding_mask[:, None, :], PADDING_SCORE)
    if backend == "flex":
        output = flex_dynamic_mask_attention(
            query, key, value, score, keep_window_size, document_ids, scale, chunk_size
        )
    else:
        attend = partial(
            _attend_group,
            keep_window_size=keep_window_size,
            scale=scale,
            backend=backend,
            chunk_size=chunk_size,
            dropout=dropout,
        )
        if document_ids is None:
            output = attend(query, key, value, score)
        else:
            documents = documents or group_documents(document_ids)
            output = _attend_documents((query, key, value, score), documents, attend)
    if padding_mask is not None:
        output = zero_rows_without_keys(output, padding_mask, document_ids)
    return output


def _attend_group(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    *,
    keep_window_size: int,
    scale: float,
    backend: str,
    chunk_size: int | None,
    dropout: float,
) -> torch.Tensor:
    """Attend in a batch of single documents."""
    longest = query.shape[2]
    if backend == "fused" and longest > keep_window_size:
        raise UserError(
            f"backend='fused' needs documents of at most keep_window_size={keep_window_size} tokens, got {longest}; "
            "use backend='streaming' or 'auto'"
        )
    if longest <= keep_window_size and backend != "streaming":
        return fused_attention(query, key, value, score, scale=scale, dropout=dropout)
    return streaming_attention(
        query, key, value, score, keep_window_size, scale, chunk_size=chunk_size, dropout=dropout
    )[0]


def _attend_documents(
    parts: tuple[torch.Tensor, ...], documents: list[DocumentGroup], attend: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Attend group by group, never with a T x T mask; `parts` are query, key, value and score.

    A group's padding stands on the right of its documents, where causal attention hides it from every real query; its
    outputs are dropped.
    """
    batch, heads, num_tokens, head_dim = parts[0].shape
    flat = [x.transpose(1, 2).flatten(0, 1) for x in parts]  # [B * T, heads, ...]
    outputs, order = [], []
    for group in documents:
        out = attend(*(x[group.tokens].transpose(1, 2) for x in flat))  # from [n, heads, L, ...] each
        outputs.append(out.transpose(1, 2)[group.real])
        order.append(group.tokens[group.real])
    joined, places = torch.cat(outputs), torch.cat(order)  # [B * T, H, d] in the order of the groups
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places), device=places.device)
    return joined[back].view(batch, num_tokens, heads, head_dim).transpose(1, 2)


def _check_arguments(
    query: torch.Tensor, key: torch.Tensor, score: torch.Tensor, keep_window_size: int, backend: str, dropout: float
) -> None:
    if backend not in BACKENDS:
        raise UserError(unknown_name_message("backend", backend, BACKENDS))
    if backend == "flex" and dropout:
        raise UserError(
            f"attention_dropout={dropout} is not supported by the flex backend; use 'auto', or set it to 0"
        )
    if keep_window_size < 1:
        raise UserError(f"keep_window_size={keep_window_size} must be at least 1")
    if query.shape[1] % key.shape[1] != 0:
        raise UserError(f"{query.shape[1]} query heads are not a multiple of {key.shape[1]} key-value heads")
    if score.shape != key.shape[:3]:
        raise UserError(f"score has shape {tuple(score.shape)}, expected {tuple(key.shape[:3])}: one number per key")
