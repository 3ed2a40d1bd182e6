"""The guides' door to fine-tuning data: conversations, preferences and problems by ratio."""

from collections.abc import Callable
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from .engine import Mix
from .formats import DEFAULT_THINKING_TAGS, Format
from .mixing import mix_by_ratio
from .report import DEFAULT_MAX_BAD_ROWS, DEFAULT_MAX_BAD_SHARE


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
    *,
    row_format: str = "conversation",
    thinking_tags: tuple[str, str] = DEFAULT_THINKING_TAGS,
    system_prompt: str | None = None,
    identity: str | None = None,
    identity_share: float = 0.05,
    test_size: int = 0,
    padding: bool = False,
    max_bad_rows: int = DEFAULT_MAX_BAD_ROWS,
    max_bad_share: float = DEFAULT_MAX_BAD_SHARE,
    streaming: bool = False,
) -> Any:
    """Make rows for SFT, DPO or GRPO from sources of any usual form (see `small_doge.processor.forms`).

    Of a mix of instructions and preferences, the format conversation takes the prompt and the chosen answer of a preference, and
    the format preference takes the preferences alone.

    Args:
        datasets_and_ratios: as for pre-training.
        total_sample_size: rows, shared out by ratio; -1 takes all.
        dataset_text_field: field with a text that is not a conversation; `text` if None.
        processing_class: tokenizer.
        max_length: tokens of a row; conversations are cut there, and those whose answer would be lost are dropped.
        apply_chat_template: render and tokenise conversations, with labels on the answers alone; else rows stay `messages`.
        apply_thinking_template: a teacher's thought goes between `thinking_tags`, before the answer.
        packing: as for pre-training; conversations are never split between rows unless it is `wrapped`.
        formatting_func: makes of a row a text, {"conversation"}, {"messages"} or a row of any known form.
        dataset_num_proc: processes that tokenise; as many as there are cores if None.
        seed: of the order of rows.
        cache_dir: where rows are kept between runs; the cache of `datasets` if None.
        row_format: conversation, preference, problem or prompt.
        thinking_tags: the tags of the thinking template.
        system_prompt: put before conversations that have none.
        identity: what the model says when asked who it is, put before some conversations.
        identity_share: share of those conversations.
        test_size: rows of a test split, none of whose prompts stands in the training split.
        padding: rows are padded to `max_length` and carry an `attention_mask`.
        max_bad_rows: rows that a source may lose; they are reported and kept in a side file.
        max_bad_share: share of its rows that a source of 100 rows or more may lose.
        streaming: as for pre-training.

    Returns:
        `train` and, if asked for, `test`. conversation: `input_ids`, `labels`, `seq_lengths`. preference: `prompt`, `chosen`,
        `rejected`. problem: `prompt`, `solution`.

    Raises:
        ValueError: settings that don't fit, an empty source, too many bad rows.
        UserError: the disk is full, or a process was killed.
    """
    form = Format(
        row_format=row_format,
        max_length=max_length,
        text_field=dataset_text_field,
        formatting_func=formatting_func,
        apply_chat_template=apply_chat_template,
        apply_thinking_template=apply_thinking_template,
        thinking_tags=thinking_tags,
        system_prompt=system_prompt,
        identity=identity,
        identity_share=identity_share,
    )
    mix = Mix.of(
        datasets_and_ratios,
        packing=packing,
        total=total_sample_size,
        test_size=test_size,
        form=form,
        padding=padding,
        seed=seed,
        max_bad_rows=max_bad_rows,
        max_bad_share=max_bad_share,
    )
    return mix_by_ratio(mix, processing_class, cache_dir, dataset_num_proc, streaming)


def mix_datasets_by_radio(*args: Any, **kwargs: Any) -> DatasetDict:
    """The guides' spelling of `mix_datasets_by_ratio`."""
    return mix_datasets_by_ratio(*args, **kwargs)
