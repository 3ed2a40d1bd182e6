"""Rows of tokens of real texts, for the studies that train language models."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from small_doge.processor.sources import open_source
from small_doge.processor.tokenizer import read_texts
from small_doge.utils.errors import UserError
from small_doge.utils.files import write_bytes
from small_doge.utils.model_folder import load_tokenizer


KEPT = Path("runs/studies/tokens")


def read_tokens(
    data: Sequence[str], tokenizer: str, length: int, train_rows: int, held_out_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [train_rows, length] and [held_out_rows, length] of tokens, of different documents; kept as .npy for next time.

    Args:
        data: files, folders, or other names of data sets that `small-doge` takes.
        tokenizer: folder of the tokenizer.
        length: tokens of a row; documents are joined and cut.
    """
    names = [*map(str, data)]
    facts = [(name, [(r.path, r.version, r.stop) for r in open_source(name).ranges]) for name in names]
    words = Path(tokenizer, "tokenizer.json")
    facts += [hashlib.sha256(words.read_bytes()).hexdigest() if words.is_file() else str(tokenizer)]
    key = hashlib.sha256(json.dumps([facts, length, train_rows, held_out_rows]).encode()).hexdigest()[:16]
    paths = [KEPT / f"{key}-{part}.npy" for part in ("train", "held-out")]
    if not all(path.exists() for path in paths):
        texts = list(read_texts(names))
        np.random.default_rng(0).shuffle(texts)
        held_out, trained = cut_rows(texts, load_tokenizer(tokenizer), length, [held_out_rows, train_rows])
        for path, rows in zip(paths, (trained, held_out), strict=True):
            content = io.BytesIO()
            np.save(content, rows)
            write_bytes(path, content.getvalue())
    return np.load(paths[0]), np.load(paths[1])


def cut_rows(texts: Iterable[str], tokenizer, length: int, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """Arrays of `counts` rows one after the other; the rest of the document that fills one is not in the next."""
    texts = iter(texts)
    for count in counts:
        ids: list[int] = []
        for text in texts:
            ids += [*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]
            if len(ids) >= count * length:
                break
        if len(ids) < count * length:
            raise UserError(
                f"--data has {len(ids) // length} rows of {length} tokens where {count} are wanted; give more"
            )
        yield np.array(ids[: count * length], dtype=np.int64).reshape(count, length)


def draw_batches(rows: np.ndarray, batch_size: int, seed: int) -> Iterator[dict]:
    """Batches of rows for a language model, without end; every row once before any comes again."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(rows))
        for first in range(0, len(rows) - batch_size + 1, batch_size):
            batch = rows[order[first : first + batch_size]]
            yield {"input_ids": batch, "labels": batch}
