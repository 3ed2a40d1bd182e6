"""FlexAttention backend (CUDA): the mask is one number per key, so the block mask needs no T x T tensor.

Shapes: B batch, T tokens, H query heads, K key-value heads, d head dimension.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .masking import compute_leaving_index
from .streaming import choose_chunk_size


BLOCK_SIZE = 128


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)


def build_block_mask(leaving: torch.Tensor, document_ids: torch.Tensor | None) -> BlockMask:
    """Find the blocks of queries and keys that can meet.

    A block of keys is visited by a block of queries when it is not wholly in their future, some of its keys have not
    left before the first of them, and the documents of the two overlap: a superset of the pairs that meet, which
    `mask_mod` then decides one by one.

    Args:
        leaving: [B, H or K, T], the first query that no longer sees each key, from `compute_leaving_index`.
        document_ids: [B, T], or None for one document per row.
    """
    batch, heads, num_tokens = leaving.shape
    blocks = -(-num_tokens // BLOCK_SIZE)
    start = torch.arange(blocks, device=leaving.device) * BLOCK_SIZE
    padded = torch.nn.functional.pad(leaving, (0, blocks * BLOCK_SIZE - num_tokens))
    last_seen = padded.view(batch, heads, blocks, BLOCK_SIZE).amax(dim=-1)
    meets = (start[:, None] >= start[None, :]) & (last_seen[:, :, None, :] > start[:, None])
    if document_ids is not None:
        ends = (start + BLOCK_SIZE - 1).clamp(max=num_tokens - 1)
        first_doc, last_doc = document_ids[:, start], document_ids[:, ends]
        meets = meets & (last_doc[:, None, None, :] >= first_doc[:, None, :, None])
    counts = meets.sum(dim=-1, dtype=torch.int32)
    order = meets.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)

    def mask_mod(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = (k <= q) & (q < leaving[b, h, k])
        return seen if document_ids is None else seen & (document_ids[b, q] == document_ids[b, k])

    return BlockMask.from_kv_blocks(
        counts, order, BLOCK_SIZE=BLOCK_SIZE, mask_mod=mask_mod, seq_lengths=(num_tokens, num_tokens)
    )


def flex_dynamic_mask_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    keep_window_size: int,
    document_ids: torch.Tensor | None,
    scale: float,
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Attend as `dynamic_mask_attention` does; compiled on CUDA, uncompiled (slow, for tests) elsewhere.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        score: [B, K, T], `PADDING_SCORE` for padded keys.
        keep_window_size: w.
        document_ids: [B, T], or None for one document per row.
        scale: of q.k.
        chunk_size: queries planned at once; `choose_chunk_size` if None.

    Returns:
        [B, H, T, d].
    """
    groups = query.shape[1] // key.shape[1]
    leaving = compute_leaving_index(
        score, keep_window_size, chunk_size or choose_chunk_size(keep_window_size, score), document_ids
    )
    head_leaving = leaving.repeat_interleave(groups, dim=1)
    bias = score.to(torch.promote_types(query.dtype, torch.float32)).repeat_interleave(groups, dim=1)

    def add_score(
        logit: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor
    ) -> torch.Tensor:
        return logit + bias[b, h, k]

    attend: Any = _compiled_flex_attention() if query.is_cuda else flex_attention
    return attend(
        query,
        key,
        value,
        score_mod=add_score,
        block_mask=build_block_mask(head_leaving, document_ids),
        scale=scale,
        enable_gqa=groups > 1,
    )
