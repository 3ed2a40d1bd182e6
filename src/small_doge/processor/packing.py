"""Documents into rows: several whole documents a row, none of which reads another."""

import bisect
from dataclasses import dataclass, field

import numpy as np
import torch

from ..utils.errors import UserError
from .encoder import IGNORED, Example


@dataclass
class Row:
    """A packed row.

    Args:
        tokens: int32.
        labels: int32 with -100 where nothing is learnt, or None.
        lengths: tokens of each document, or piece of one, in it.
        keys: of the documents.
        fields: of a stage that gives messages, in place of tokens.
    """

    tokens: np.ndarray | None = None
    labels: np.ndarray | None = None
    lengths: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    fields: dict = field(default_factory=dict)


def pack(examples: list[Example], max_length: int, packing: str, split_long: bool) -> list[Row]:
    """Pack examples into rows of at most `max_length` tokens.

    Args:
        examples: a block of them.
        max_length: tokens of a row.
        packing: best_fit: whole documents, the longest first, each into the fullest row that has room. wrapped: one
            after the other, cut where a row is full. none: a document a row.
        split_long: whether a document longer than a row goes on in the next, or is cut.
    """
    if packing == "wrapped":
        return _wrap(examples, max_length)
    pieces = [
        (example, start, min(start + max_length, len(example.tokens)))
        for example in examples
        for start in range(0, len(example.tokens) if split_long and packing != "none" else 1, max_length)
    ]
    if packing == "none":
        return [_join([piece]) for piece in pieces]
    groups = plan_best_fit([stop - start for _, start, stop in pieces], max_length)
    return [_join([pieces[i] for i in group]) for group in groups]


def plan_best_fit(lengths: list[int], max_length: int) -> list[list[int]]:
    """Plan which lengths share a row, by best-fit-decreasing bin packing."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        place = bisect.bisect_left(free, (length, -1))
        if place == len(free):
            rows.append([index])
            space, row = max_length, len(rows) - 1
        else:
            space, row = free.pop(place)
            rows[row].append(index)
        bisect.insort(free, (space - length, row))
    return rows


def _wrap(examples: list[Example], max_length: int) -> list[Row]:
    rows: list[Row] = []
    members: list[tuple[Example, int, int]] = []
    room = max_length
    for example in examples:
        start = 0
        while start < len(example.tokens):
            stop = min(start + room, len(example.tokens))
            members.append((example, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                rows.append(_join(members))
                members, room = [], max_length
    return [*rows, _join(members)] if members else rows


def _join(members: list[tuple[Example, int, int]]) -> Row:
    tokens = np.concatenate([example.tokens[start:stop] for example, start, stop in members])
    labels = None
    if members[0][0].labels is not None:
        labels = np.concatenate([example.labels[start:stop] for example, start, stop in members])
    return Row(tokens, labels, [b - a for _, a, b in members], [example.key for example, _, _ in members])


def teaches(row: Row) -> bool:
    """Tell whether a token of a row is learnt. The first of a document never is: nothing before it predicts it."""
    if row.tokens is None:
        return True
    learnt = np.full(len(row.tokens), True) if row.labels is None else row.labels != IGNORED
    learnt[np.cumsum([0, *row.lengths[:-1]])] = False
    return bool(learnt.any())


class PackedCollator:
    """Joins rows of packed documents into one row without padding.

    `position_ids` restart at each document, which tells the model where attention may not cross; the first token of a
    document has no label, because nothing before it predicts it. Padding of rows that were saved padded is dropped.
    """

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Make [1, N] tensors `input_ids`, `labels`, `position_ids` from rows of `input_ids`, `seq_lengths`, maybe `labels`."""
        lengths = [int(n) for row in rows for n in row["seq_lengths"]]
        filled = [sum(row["seq_lengths"]) for row in rows]
        for row, length in zip(rows, filled, strict=True):
            padded = "attention_mask" in row
            if len(row["input_ids"]) < length or (len(row["input_ids"]) > length and not padded):
                raise UserError(f"seq_lengths sum to {length}, but the row holds {len(row['input_ids'])} tokens")
        input_ids = _cut_and_join([row["input_ids"] for row in rows], filled)
        learnt = _cut_and_join([row.get("labels", row["input_ids"]) for row in rows], filled)
        position_ids = torch.cat([torch.arange(n) for n in lengths])
        labels = learnt.masked_fill(position_ids == 0, IGNORED)
        batch = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}
        return {name: tensor.unsqueeze(0) for name, tensor in batch.items()}


def _cut_and_join(columns: list, lengths: list[int]) -> torch.Tensor:
    cut = [torch.as_tensor(tokens, dtype=torch.int64)[:n] for tokens, n in zip(columns, lengths, strict=True)]
    return torch.cat(cut)
