"""Packed documents: told apart by their positions, and grouped so that attention runs document by document.

Shapes: B batch, T tokens in a row, n documents in a group, L tokens of its longest document.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch


# A group's longest document is at most this many times its shortest (and a little more for tiny ones).
GROUP_SPREAD = 1.25


@dataclass
class DocumentGroup:
    """Holds documents of similar length, padded on the right to one length.

    Attributes:
        tokens: [n, L] int64, positions among the flattened B * T tokens; a document's padding repeats its last token.
        real: [n, L] bool, false for that padding, which causal attention never lets a real query see.
    """

    tokens: torch.Tensor
    real: torch.Tensor


def document_ids_from_positions(position_ids: torch.Tensor) -> torch.Tensor | None:
    """Assign a number to each document of packed rows: a document starts where a position does not follow the one before.

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


@torch.no_grad()
def group_documents(document_ids: torch.Tensor) -> list[DocumentGroup]:
    """Sort packed documents by length into groups that attention can take as batches.

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
    """List the documents as (rows, start, end); a single one for the whole batch when there are no `document_ids`."""
    if document_ids is None:
        return [(slice(0, batch), 0, num_tokens)]
    spans = []
    for row, ids in enumerate(document_ids.cpu()):  # moved once: each row read on a GPU would wait for it
        starts = [0, *(torch.nonzero(ids[1:] != ids[:-1]).flatten() + 1).tolist(), num_tokens]
        spans += [(slice(row, row + 1), a, b) for a, b in pairwise(starts)]
    return spans
