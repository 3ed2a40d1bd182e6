"""Documents into rows: several whole documents a row, none of which reads another."""

import bisect
from collections.abc import Iterable, Iterator

import torch


# Documents looked at together: enough to fill rows well, small enough for flat memory.
WINDOW = 4096


def split_document(tokens: list[int], max_length: int) -> list[list[int]]:
    """Pieces of at most `max_length` tokens."""
    return [tokens[start : start + max_length] for start in range(0, len(tokens), max_length)]


def pack_best_fit(documents: Iterable[list[int]], max_length: int, window: int = WINDOW) -> Iterator[dict]:
    """Best-fit-decreasing packing, a window of documents at a time.

    Args:
        documents: token lists; longer ones are split.
        max_length: tokens of a row.
        window: documents looked at together.

    Yields:
        {"input_ids": at most `max_length` tokens, "seq_lengths": tokens of each document in the row}.
    """
    waiting: list[list[int]] = []
    for document in documents:
        waiting += split_document(document, max_length)
        if len(waiting) >= window:
            yield from _pack_window(waiting, max_length)
            waiting = []
    yield from _pack_window(waiting, max_length)


def _pack_window(documents: list[list[int]], max_length: int) -> Iterator[dict]:
    rows: list[list[list[int]]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for document in sorted(documents, key=len, reverse=True):
        place = bisect.bisect_left(free, (len(document), -1))
        if place == len(free):
            rows.append([document])
            bisect.insort(free, (max_length - len(document), len(rows) - 1))
        else:
            space, row = free.pop(place)
            rows[row].append(document)
            bisect.insort(free, (space - len(document), row))
    for members in rows:
        yield {"input_ids": [token for doc in members for token in doc], "seq_lengths": [len(doc) for doc in members]}


class PackedCollator:
    """Joins rows of packed documents into one row without padding.

    `position_ids` restart at each document, which tells the model where attention may not cross; the first token of a
    document has no label, because nothing before it predicts it.
    """

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """[1, N] tensors `input_ids`, `labels`, `position_ids` from rows of `input_ids` and `seq_lengths`."""
        input_ids = torch.cat([torch.as_tensor(row["input_ids"], dtype=torch.int64) for row in rows])
        lengths = [int(n) for row in rows for n in row["seq_lengths"]]
        if sum(lengths) != len(input_ids):
            raise ValueError(f"seq_lengths sum to {sum(lengths)}, but the rows hold {len(input_ids)} tokens")
        position_ids = torch.cat([torch.arange(n) for n in lengths])
        labels = input_ids.masked_fill(position_ids == 0, -100)
        batch = {"input_ids": input_ids, "labels": labels, "position_ids": position_ids}
        return {name: tensor.unsqueeze(0) for name, tensor in batch.items()}
