"""Fine-tuning data by ratio: conversations, preferences and problems from rows of any usual form."""

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
    apply_chat_template: bool = True,
    apply_thinking_template: bool = False,
    packing: bool | str = False,
    formatting_func: Callable[[dict], Any] | None = None,
    dataset_num_proc: int | None = None,
    seed: int = 233,
    cache_dir: str | None = None,
    **settings: Any,
) -> Any:
    """Make rows for SFT, DPO or GRPO from sources of any usual form (see `small_doge.processor.row_schemas`).

    Of a mix of instructions and preferences, the row format conversation takes the prompt and the chosen answer of a
    preference, and the row format preference takes the preferences alone.

    Args:
        datasets_and_ratios: as for pre-training, as are all that are not described here.
        total_sample_size: rows, shared out by ratio; -1 takes all.
        dataset_text_field: field with a text that is not a conversation.
        processing_class: tokenizer.
        max_length: tokens of a row; conversations are cut there, and those whose answer would be lost are dropped.
        apply_chat_template: render and tokenise, with labels on the answers alone; else rows stay `messages`.
        apply_thinking_template: a teacher's thought goes between `thinking_tags`, before the answer.
        packing: as for pre-training; conversations are never split between rows unless it is `wrapped`.
        formatting_func: makes of a row a text, {"conversation"}, {"messages"} or a row of any known form. `prompt`,
            `response` and `thinking` can be read of rows of any known form: the first question, its answer and the thought.
        dataset_num_proc: processes that tokenise.
        seed: of the order of rows.
        cache_dir: where rows are kept between runs.
        settings: further fields of `DataConfig`, such as `row_format`, which is conversation if not given.

    Returns:
        `train` and, if `test_size` is set, `test`. Conversations: `input_ids`, `labels`, `seq_lengths`. Preferences:
        `prompt`, `chosen`, `rejected`. Problems: `prompt`, `solution`.

    Raises:
        ValueError: settings that don't fit, an empty source, too many bad rows.
        UserError: the disk is full, or a process was killed.
    """
    given = {name: value for name, value in locals().items() if name not in ("processing_class", "settings")}
    return make_rows(DataConfig.of({"row_format": "conversation", **given, **settings}), processing_class)


def mix_datasets_by_radio(*args: Any, **kwargs: Any) -> DatasetDict:
    """Call `mix_datasets_by_ratio`, whose name the published guides spell so."""
    return mix_datasets_by_ratio(*args, **kwargs)
