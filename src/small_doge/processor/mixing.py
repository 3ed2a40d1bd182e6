"""From a configuration to rows: on disk, or streamed."""

from pathlib import Path

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from .data_config import DataConfig
from .mix_reader import MixReader
from .prepare import prepare
from .report import FAILED
from .stream import MixedStream


def make_rows(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase | None
) -> "DatasetDict | dict[str, MixedStream | Dataset]":
    """Make the rows of a mix by split: prepared on disk, or as streams with the same rows in the same order.

    Raises:
        ValueError: no tokenizer, or settings and sources that don't fit.
    """
    if tokenizer is None:
        raise UserError("processing_class is missing: pass a tokenizer")
    if config.padding and tokenizer.pad_token_id is None:
        raise UserError("padding=True: the tokenizer has no padding token; set its pad_token")
    return open_streams(config, tokenizer) if config.streaming else prepare(config, tokenizer)


def open_streams(config: DataConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, MixedStream | Dataset]:
    """Open `train` as a stream and, if asked for, `test` as rows in memory."""
    reader = MixReader(config, tokenizer)
    reader.check_first_rows()
    train = MixedStream(reader, Path(config.cache_dir) / FAILED if config.cache_dir else None)
    return {"train": train, "test": Dataset.from_list(train.test_rows)} if config.test_size else {"train": train}
