"""Which keys a query keeps, and the state that carries them from one chunk to the next.

Shapes: B batch, T tokens, H query heads, K key-value heads, G = H / K, d head size, M keys at hand,
w `keep_window_size`, C chunk.

The order of keys is total: the larger score first, compared in bfloat16 (`round_for_ranking`), and among equals the
more recent key. A padded key carries `PADDING_SCORE`, which ranks it below every real key and gives it no weight in the
softmax.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch


# Real scores are exponentials, hence positive. Finite, so that a row that has only padding stays free of NaN.
PADDING_SCORE = -1e30


@dataclass
class KeptKeys:
    """The best keys seen so far, per key-value head: all that later queries can ever need.

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

    def select(self, order: torch.Tensor) -> "KeptKeys":
        """Keep the keys that `order` [B, K, N] names."""
        rows = order.unsqueeze(-1).expand(-1, -1, -1, self.key.shape[-1])
        return KeptKeys(
            self.key.gather(2, rows),
            self.value.gather(2, rows),
            self.score.gather(2, order),
            self.index.gather(2, order),
        )

    def append(self, other: "KeptKeys") -> "KeptKeys":
        """The keys of both, in the order of the sequence."""
        return KeptKeys(
            torch.cat([self.key, other.key], dim=2),
            torch.cat([self.value, other.value], dim=2),
            torch.cat([self.score, other.score], dim=2),
            torch.cat([self.index, other.index], dim=2),
        )


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
    """Positions of `score` [..., M], best first; the keys must stand in the order of the sequence."""
    newest_first = round_for_ranking(score).flip(-1)
    order = newest_first.sort(dim=-1, descending=True, stable=True).indices
    return score.shape[-1] - 1 - order


@torch.no_grad()
def plan_chunk(score: torch.Tensor, num_new: int, keep_window_size: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Who stays after a chunk, and when the others leave.

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
    # Better keys that a loser has at each query of the chunk: those before the chunk, and the chunk's up to there.
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
    """For each key the first query that no longer sees it: [B, K, T] int64, T where there is none.

    Linear in T. Key j belongs to query i when j <= i < the returned number (and both are in one document).
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


def document_ids_from_positions(position_ids: torch.Tensor) -> torch.Tensor | None:
    """Number the documents of packed rows: a document starts where a position does not follow the one before.

    Args:
        position_ids: [B, T]. Only for rows with neither attention mask nor cache: `generate` gives left padding the
            positions 0, 0, 0, 1, 2, which look like restarts.

    Returns:
        [B, T] int64 document numbers, or None when no row holds more than one.
    """
    restarts = position_ids[:, 1:] != position_ids[:, :-1] + 1
    if not bool(restarts.any()):
        return None
    first = torch.zeros_like(position_ids[:, :1])
    return torch.cat([first, restarts.to(torch.int64).cumsum(dim=-1)], dim=-1)


@dataclass
class DocumentGroup:
    """Documents of like length, padded on the right to one length.

    Attributes:
        tokens: [n, L] int64, positions among the flattened B * T tokens; a document's padding repeats its last token.
        real: [n, L] bool, false for that padding, which causal attention never lets a real query see.
    """

    tokens: torch.Tensor
    real: torch.Tensor


# A group's longest document is at most this many times its shortest (and a little more for tiny ones).
GROUP_SPREAD = 1.25


@torch.no_grad()
def group_documents(document_ids: torch.Tensor) -> list[DocumentGroup]:
    """Sort packed documents into groups that can be attended to as batches.

    Args:
        document_ids: [B, T]; a document is a run of equal numbers in a row.
    """
    batch, num_tokens = document_ids.shape
    spans = [(row.start * num_tokens + a, b - a) for row, a, b in iterate_documents(document_ids, batch, num_tokens)]
    spans.sort(key=lambda span: span[1])
    groups, first = [], 0
    for last in range(1, len(spans) + 1):
        if last < len(spans) and spans[last][1] <= GROUP_SPREAD * spans[first][1] + 8:
            continue
        chosen = torch.tensor(spans[first:last], device=document_ids.device)
        starts, lengths = chosen[:, :1], chosen[:, 1:]
        offset = torch.arange(int(spans[last - 1][1]), device=document_ids.device)
        real = offset < lengths
        groups.append(DocumentGroup(starts + torch.minimum(offset, lengths - 1), real))
        first = last
    return groups


def iterate_documents(document_ids: torch.Tensor | None, batch: int, num_tokens: int) -> list[tuple[slice, int, int]]:
    """The documents as (rows, start, end); one for the whole batch when there are no `document_ids`."""
    if document_ids is None:
        return [(slice(0, batch), 0, num_tokens)]
    spans = []
    for row, ids in enumerate(document_ids):
        starts = [0, *(torch.nonzero(ids[1:] != ids[:-1]).flatten() + 1).tolist(), num_tokens]
        spans += [(slice(row, row + 1), a, b) for a, b in pairwise(starts)]
    return spans
