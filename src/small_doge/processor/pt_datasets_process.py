"""The guides' door to pre-training data: named sources and ratios into packed rows."""

from collections.abc import Callable
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from .engine import Mix
from .formats import Format
from .mixing import mix_by_ratio
from .report import DEFAULT_MAX_BAD_ROWS, DEFAULT_MAX_BAD_SHARE


def mix_datasets_by_ratio(
    datasets_and_ratios: list[dict[str, float]],
    total_sample_size: int = -1,
    dataset_text_field: str | None = None,
    processing_class: PreTrainedTokenizerBase | None = None,
    max_length: int = 2048,
    packing: bool | str = True,
    formatting_func: Callable[[dict], Any] | None = None,
    dataset_num_proc: int | None = None,
    seed: int = 233,
    cache_dir: str | None = None,
    *,
    apply_chat_template: bool = False,
    identity: str | None = None,
    test_size: int = 0,
    padding: bool = False,
    max_bad_rows: int = DEFAULT_MAX_BAD_ROWS,
    max_bad_share: float = DEFAULT_MAX_BAD_SHARE,
    streaming: bool = False,
) -> Any:
    """Read, tokenise, pack and mix sources. The same settings give the same rows, whatever the number of processes.

    Args:
        datasets_and_ratios: one-key dicts {name: ratio}; see `small_doge.processor.sources.open_source` for names.
            The ratios sum to 1.
        total_sample_size: rows after packing, shared out by ratio; a source with too few repeats. -1 takes every row
            of every source once, whatever the ratios.
        dataset_text_field: field with the text; `text` if None.
        processing_class: tokenizer.
        max_length: tokens of a row.
        packing: True or `best_fit`, several whole documents a row; `wrapped`, documents cut where a row is full; False,
            one document a row, cut at `max_length`.
        formatting_func: makes of a row a text, {"text"}, {"messages"} or {"conversation"}.
        dataset_num_proc: processes that tokenise; as many as there are cores if None.
        seed: of the order of documents and rows.
        cache_dir: where rows are kept between runs; the cache of `datasets` if None.
        apply_chat_template: rows with `prompt` and `text`, such as cosmopedia-v2's, become a user's and an assistant's turn.
        identity: what the model says when asked who it is, put before some of those chats.
        test_size: rows of a test split, none of whose documents stands in the training split.
        padding: rows are padded to `max_length` and carry an `attention_mask`.
        max_bad_rows: rows that a source may lose; they are reported and kept in a side file.
        max_bad_share: share of its rows that a source of 100 rows or more may lose.
        streaming: make rows while they are read, in place of keeping them on disk: see `small_doge.processor.stream.MixedStream`.

    Returns:
        `train` and, if asked for, `test`, with `input_ids`, `seq_lengths` and `source`.

    Raises:
        ValueError: ratios, names, fields or sizes that don't fit, an empty source, too many bad rows.
        UserError: the disk is full, or a process was killed.
    """
    mix = Mix.of(
        datasets_and_ratios,
        packing=packing,
        total=total_sample_size,
        test_size=test_size,
        form=Format(
            row_format="text",
            max_length=max_length,
            text_field=dataset_text_field,
            formatting_func=formatting_func,
            apply_chat_template=apply_chat_template,
            identity=identity,
        ),
        padding=padding,
        seed=seed,
        max_bad_rows=max_bad_rows,
        max_bad_share=max_bad_share,
    )
    return mix_by_ratio(mix, processing_class, cache_dir, dataset_num_proc, streaming)


def mix_datasets_by_radio(*args: Any, **kwargs: Any) -> DatasetDict:
    """The guides' spelling of `mix_datasets_by_ratio`."""
    return mix_datasets_by_ratio(*args, **kwargs)
