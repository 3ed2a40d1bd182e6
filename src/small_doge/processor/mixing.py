"""From a mix to its rows: on disk, or streamed."""

from pathlib import Path

import datasets.config
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from .engine import Engine, Mix
from .prepare import prepare
from .report import FAILED
from .stream import MixedStream


def mix_by_ratio(
    mix: Mix,
    tokenizer: PreTrainedTokenizerBase | None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
    streaming: bool = False,
) -> "DatasetDict | dict[str, MixedStream | Dataset]":
    """Rows of a mix by split: prepared on disk, or as streams with the same rows in the same order.

    Raises:
        ValueError: no tokenizer, or settings and sources that don't fit.
    """
    if tokenizer is None:
        raise UserError("processing_class is missing: pass a tokenizer")
    if mix.padding and tokenizer.pad_token_id is None:
        raise UserError("padding=True: the tokenizer has no padding token; set its pad_token")
    if streaming:
        return open_streams(mix, tokenizer, cache_dir)
    return prepare(mix, tokenizer, cache_dir or default_cache_dir(), num_proc)


def open_streams(
    mix: Mix, tokenizer: PreTrainedTokenizerBase, cache_dir: str | Path | None = None
) -> dict[str, MixedStream | Dataset]:
    """`train` as a stream and, if asked for, `test` as rows in memory."""
    engine = Engine(mix, tokenizer)
    engine.check_first_rows()
    train = MixedStream(engine, Path(cache_dir) / FAILED if cache_dir else None)
    return {"train": train, "test": Dataset.from_list(train.test_rows)} if mix.test_size else {"train": train}


def default_cache_dir() -> Path:
    """Beside the caches of `datasets`."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "small-doge"
