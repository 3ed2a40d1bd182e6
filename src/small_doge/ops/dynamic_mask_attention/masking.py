"""Which keys a query keeps: their scores, the order of keys, and what stays from one chunk to the next.

Shapes: B batch, T tokens, H query heads, K key-value heads, G = H / K, d head dimension, M available keys,
w `keep_window_size`, C queries in a chunk.

The order of keys is total: the larger score first, compared in bfloat16 (`round_for_ranking`), and the more recent key
first among equals. A padded key carries `PADDING_SCORE`, which ranks it below every real key and gives it no weight in
the softmax.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .documents import iterate_documents


# Real scores are exponentials, hence positive. Finite, so that a row that has only padding stays free of NaN.
PADDING_SCORE = -1e30


@dataclass
class KeptKeys:
    """Holds the best keys seen so far, per key-value head: all that later queries can ever need.

    Attributes:
        key: [B, K, M, d], rotated already.
        value: [B, K, M, d].
        score: [B, K, M] in float32 (float64 in a float64 model); `PADDING_SCORE` for padding.
        index: [B, K, M] int64, the position in the sequence, padding counted.
    """

    key: torch.Tensor
    value: torch.Tensor
    score: torch.Tensor
    index: torch.Tensor

    @property
    def num_keys(self) -> int:
        """Return M, the keys per head."""
        return self.key.shape[2]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return key, value, score and index; the keys stand along dimension 2 of each."""
        return self.key, self.value, self.score, self.index

    def view(self, start: int, end: int) -> "KeptKeys":
        """Take the keys from place `start` to `end` as views."""
        return KeptKeys(*(x[:, :, start:end] for x in self.tensors()))

    def select(self, order: torch.Tensor) -> "KeptKeys":
        """Copy the keys at the places `order` [B, K, N]."""
        rows = order.unsqueeze(-1).expand(-1, -1, -1, self.key.shape[-1])
        return KeptKeys(
            self.key.gather(2, rows),
            self.value.gather(2, rows),
            self.score.gather(2, order),
            self.index.gather(2, order),
        )

    def append(self, other: "KeptKeys") -> "KeptKeys":
        """Join the keys of both, those of `other` last."""
        return KeptKeys(*(torch.cat(pair, dim=2) for pair in zip(self.tensors(), other.tensors(), strict=True)))


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


def round_for_ranking(score: torch.Tensor) -> torch.Tensor:
    """Round scores of any shape to bfloat16 and return them as float32: the values by which keys are compared.

    The float32 scores of equal tokens differ by about 1e-7 between a forward pass of many tokens and one of a single
    token. Compared as they are, such scores would rank in another order each time; rounded to 8 significant bits they
    tie, and the more recent key wins everywhere. The bias of the softmax stays unrounded.
    """
    # Rounding the bits, to nearest and ties to even, is what `.bfloat16().float()` does; compilers may drop that pair.
    bits = score.detach().float().view(torch.int32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000).view(torch.float32)


def rank_keys(score: torch.Tensor) -> torch.Tensor:
    """Sort the places of `score` [..., M], best first; the keys must stand in the order of the sequence."""
    # A stable sort leaves equal keys as they stand, so reversing them first puts the more recent one ahead. `topk` and
    # an unstable sort leave ties undefined: the same prefix would keep other keys in a longer sequence.
    newest_first = round_for_ranking(score).flip(-1)
    order = newest_first.sort(dim=-1, descending=True, stable=True).indices
    return score.shape[-1] - 1 - order


@torch.no_grad()
def plan_chunk(score: torch.Tensor, num_new: int, keep_window_size: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Find the keys that stay after a chunk of queries, and when each of the others leaves.

    A key that is dropped never comes back (its score depends on its token alone, and the w-th best of a growing
    prefix only rises), so one number per key says all: key j belongs to the queries i with j <= i < leaves_at[j].

    Args:
        score: [B, K, M], the kept keys and then the chunk's `num_new` own, in the order of the sequence.
        num_new: C, the last C keys are the chunk's.
        keep_window_size: w.

    Returns:
        `stays` [B, K, min(M, w)], sorted; and `leaves_at` [B, K, M], the offset in the chunk of the first query that
        no longer sees the key (C: none in this chunk), or None when every key stays.
    """
    num_keys = score.shape[-1]
    order = rank_keys(score)
    if num_keys <= keep_window_size:
        return order.sort(dim=-1).values, None
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(num_keys, device=score.device).expand_as(order))
    losers = order[..., keep_window_size:]
    loser_rank = rank.gather(-1, losers).unsqueeze(-1)
    # A loser leaves at the first query that has w better keys. Of the `loser_rank` better keys at the chunk's end,
    # `seen` [B, K, losers, C] counts the chunk's own up to each query; the rest stood before the chunk.
    better = (rank[..., None, num_keys - num_new :] < loser_rank).to(torch.int32)
    seen = better.cumsum(dim=-1, dtype=torch.int32)
    before = loser_rank - seen[..., -1:]
    losers_leave_at = (before + seen < keep_window_size).sum(dim=-1)
    leaves_at = torch.full_like(rank, num_new).scatter_(-1, losers, losers_leave_at)
    return order[..., :keep_window_size].sort(dim=-1).values, leaves_at


@torch.no_grad()
def compute_leaving_index(
    score: torch.Tensor, keep_window_size: int, chunk_size: int, document_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Find the first query that no longer sees each key, in time linear in T.

    Args:
        score: [B, K, T].
        keep_window_size: w.
        chunk_size: queries planned at once; it changes the time, never the result.
        document_ids: [B, T], or None for one document per row.

    Returns:
        [B, K, T] int64, T for a key that stays to the end. Key j belongs to query i when j <= i < the number returned
        for j (and both are in one document).
    """
    batch, heads, num_tokens = score.shape
    leaving = torch.full((batch, heads, num_tokens), num_tokens, dtype=torch.int64, device=score.device)
    for row, start, end in iterate_documents(document_ids, batch, num_tokens):
        kept_score = score[row, :, start:start]
        kept_index = leaving[row, :, start:start]
        for first in range(start, end, chunk_size):
            last = min(first + chunk_size, end)
            own = torch.arange(first, last, device=score.device).expand(*kept_index.shape[:2], -1)
            all_scores = torch.cat([kept_score, score[row, :, first:last]], dim=-1)
            all_index = torch.cat([kept_index, own], dim=-1)
            stays, leaves_at = plan_chunk(all_scores, last - first, keep_window_size)
            if leaves_at is not None:
                gone = torch.where(leaves_at < last - first, leaves_at + first, num_tokens)
                leaving[row].scatter_reduce_(-1, all_index, gone, reduce="amin")
            kept_score, kept_index = all_scores.gather(-1, stays), all_index.gather(-1, stays)
    return leaving


def causal_mask(
    num_tokens: int, padding_mask: torch.Tensor | None, document_ids: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """Build the dense mask [B or 1, 1, T, T]: true for keys at the same or an earlier position, real, in one document.

    Args:
        num_tokens: T.
        padding_mask: [B, T], true for real tokens.
        document_ids: [B, T].
        device: of the mask.
    """
    mask = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=device).tril()[None, None]
    if padding_mask is not None:
        mask = mask & padding_mask.bool()[:, None, None, :]
    if document_ids is not None:
        mask = mask & (document_ids[:, None, :, None] == document_ids[:, None, None, :])
    return mask


def cached_causal_mask(
    num_queries: int, num_keys: int, past: int, padding_mask: torch.Tensor | None, device: torch.device
) -> torch.Tensor:
    """Build the dense mask [B or 1, 1, T, N] of T queries that follow `past` of the N keys in a cache.

    Args:
        num_queries: T.
        num_keys: N, at least `past + T`; the slots beyond that are empty, and no query sees them.
        past: tokens before the first query.
        padding_mask: [B, tokens so far], true for real tokens.
        device: of the mask.
    """
    query = torch.arange(past, past + num_queries, device=device)[:, None]
    mask = (torch.arange(num_keys, device=device) <= query)[None, None]
    if padding_mask is not None:
        padding_mask = padding_mask.bool()
        padding_mask = F.pad(padding_mask, (0, max(0, num_keys - padding_mask.shape[1])), value=True)[:, :num_keys]
        mask = mask & padding_mask[:, None, None, :]
    return mask


def zero_rows_without_keys(
    output: torch.Tensor,
    padding_mask: torch.Tensor,
    document_ids: torch.Tensor | None = None,
    has_past: torch.Tensor | None = None,
) -> torch.Tensor:
    """Zero the outputs of queries that have only padding before them, whose softmax means nothing.

    Args:
        output: [B, H, T, d].
        padding_mask: [B, T], true for real tokens.
        document_ids: [B, T]; what stands before a query is looked for in its document.
        has_past: [B, 1], whether a real key came in an earlier call.
    """
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
