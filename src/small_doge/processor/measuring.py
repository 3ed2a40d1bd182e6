"""How many bytes of text the tokens stand for on which a model is scored."""

import itertools
import json
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .encoder import IGNORED


def count_scored_bytes(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the bytes of the text that is predicted when rows are evaluated, for bits per byte.

    A token is scored if it has a label and is not the first one of a document, or of a piece of one: nothing before it
    predicts it. Padding is not scored. Special tokens are, where they have a label (the end of a turn and of a text), but
    stand for no bytes: that a text ends there is part of what the bits tell.

    Args:
        rows: prepared, with `input_ids`, `seq_lengths` and, for answers alone, `labels`.
        tokenizer: whose tokens they hold.
    """
    sizes = measure_tokens(tokenizer)
    total = 0
    for row in rows:
        tokens = np.asarray(row["input_ids"], dtype=np.int64)
        scored = np.asarray(row.get("labels", tokens)) != IGNORED
        edges = [0, *itertools.accumulate(row["seq_lengths"])]
        scored[edges[-1] :] = False
        scored[edges[:-1]] = False
        if sizes is not None:
            total += int(sizes[tokens[scored]].sum())
            continue
        for start, stop in itertools.pairwise(edges):
            total += count_run_bytes(tokens[start:stop], scored[start:stop], tokenizer)
    return total


def count_run_bytes(tokens: np.ndarray, scored: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the bytes of the scored runs of a document's tokens by decoding each; for vocabularies that are not byte-level."""
    texts = (tokenizer.decode(tokens[run].tolist(), skip_special_tokens=True) for run in _find_runs(scored))
    return sum(len(text.encode("utf-8")) for text in texts)


def _find_runs(mask: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def measure_tokens(tokenizer: PreTrainedTokenizerBase) -> np.ndarray | None:
    """Count the bytes of each token of a byte-level vocabulary, in which a letter stands for a byte; None for other vocabularies."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder: Any = json.loads(backend.to_str()).get("decoder") if backend is not None else None
    if not decoder or decoder.get("type") != "ByteLevel":
        return None
    sizes = np.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=np.int64)
    for token, number in tokenizer.get_vocab().items():
        sizes[number] = len(token)
    for number, added in backend.get_added_tokens_decoder().items():
        sizes[number] = 0 if added.special else len(added.content.encode("utf-8"))
    return sizes
