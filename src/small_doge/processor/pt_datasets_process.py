"""Pre-training data by ratio: named sources into packed rows."""

from collections.abc import Callable
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from .data_config import DataConfig
from .mixing import make_rows


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
    **settings: Any,
) -> Any:
    """Read, tokenise, pack and mix sources. The same settings give the same rows, whatever the number of processes.

    Args:
        datasets_and_ratios: one-key dicts {name: ratio}; see `small_doge.processor.sources.open_source` for names.
            The ratios sum to 1.
        total_sample_size: rows after packing, shared out by ratio; a source with too few repeats. -1 takes every row
            of every source once, whatever the ratios.
        dataset_text_field: see `DataConfig`, as for all that follow.
        processing_class: tokenizer.
        max_length: tokens of a row.
        packing: best_fit (True), wrapped or none (False).
        formatting_func: makes of a row a text, {"text"}, {"messages"} or {"conversation"}. `prompt`,
            `response` and `thinking` can be read of rows of any known form: the first question, its answer and the thought.
        dataset_num_proc: processes that tokenise; as many as there are cores if None.
        seed: of the order of documents and rows.
        cache_dir: where rows are kept between runs; the cache of `datasets` if None.
        settings: further fields of `small_doge.processor.data_config.DataConfig`.

    Returns:
        `train` and, if `test_size` is set, `test`, with `input_ids`, `seq_lengths` and `source`.

    Raises:
        ValueError: ratios, names, fields or sizes that don't fit, an empty source, too many bad rows.
        UserError: the disk is full, or a process was killed.
    """
    given = {name: value for name, value in locals().items() if name not in ("processing_class", "settings")}
    return make_rows(DataConfig.of({"row_format": "text", **given, **settings}), processing_class)


def mix_datasets_by_radio(*args: Any, **kwargs: Any) -> DatasetDict:
    """Call `mix_datasets_by_ratio`, whose name the published guides spell so."""
    return mix_datasets_by_ratio(*args, **kwargs)
