"""Training a tokenizer: byte-level BPE with Llama 3's splitting, from a stream of texts of any length."""

import random
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..utils.errors import UserError
from ..utils.logging import get_logger
from . import row_schemas
from .cached_bpe import SPLIT_PATTERN
from .chat_encoding import encode_text
from .chat_template import BEGIN_OF_TEXT, CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, PADDING, SPECIAL_TOKENS
from .choices import DEFAULT_SAMPLE_BYTES, DEFAULT_VOCAB_SIZE
from .data_config import DataConfig
from .messages import RowError
from .report import Report, check_failures, describe_failures


logger = get_logger(__name__)

MADE_BY = "small-doge tokenizer train"
NUM_BYTES = 256


def read_texts(
    names: Iterable[str],
    config: DataConfig | None = None,
) -> Iterator[str]:
    """Read the texts of sources of any form: a text, or the contents of messages and answers. Unreadable rows are counted and told.

    Args:
        names: of the sources.
        config: its `dataset_text_field`, `max_bad_rows` and `max_bad_share` count.

    Raises:
        ValueError: a source lost more, or has no text at all.
    """
    from .sources import open_source  # which needs the extra `data`, unlike everything else here

    config = config or DataConfig()
    for name in names:
        source, report = open_source(name), Report()
        for record in (record for file_range in source.ranges for record in source.read(file_range)):
            report.rows += 1
            try:
                if record.row is None:
                    raise RowError(record.problem)
                texts = row_schemas.find_texts(record.row, config.dataset_text_field)
            except RowError as error:
                report.failed.append({"source": name, "where": record.where, "reason": str(error)})
                check_failures(name, report, config, whole=False)
                continue
            report.documents += 1
            yield from texts
        check_failures(name, report, config)
        if not report.documents:
            raise UserError(f"data set {name!r} has no text: {describe_failures(report) or 'it is empty'}")
        if report.failed:
            logger.warning(
                "data set %r: skipped %d of %d rows: %s",
                name,
                len(report.failed),
                report.rows,
                describe_failures(report),
            )


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    *,
    base: PreTrainedTokenizerBase | None = None,
    sample_bytes: int = DEFAULT_SAMPLE_BYTES,
    max_digits: int | None = None,
    min_frequency: int | None = None,
    model_max_length: int | None = None,
    seed: int = 233,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on a stream.

    Args:
        texts: read once. Of a stream of more than `sample_bytes`, an even sample of that size is used.
        vocab_size: entries, the special ones included.
        base: an old tokenizer whose algorithm, special tokens and template the new one keeps.
        sample_bytes: bounds the memory.
        max_digits: digits that may share a token, 3 if None; 1 helps small models with arithmetic. Not with a base.
        min_frequency: a pair must occur this often to be merged, twice if None. Not with a base.
        model_max_length: stored in the tokenizer. If None, that of the base, or 2,048 without one.
        seed: of the sample.

    Returns:
        A tokenizer with distinct padding, end-of-text and end-of-turn tokens and a chat template.

    Raises:
        ValueError: a vocabulary too small for the bytes, no text, or a setting that has no effect with a base.
    """
    smallest = NUM_BYTES + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UserError(f"vocab_size={vocab_size} must be at least {smallest}: all bytes and the special tokens")
    if base is not None:
        _refuse_without_effect(max_digits=max_digits, min_frequency=min_frequency)
    sample = sample_texts(texts, sample_bytes, seed)
    if not sample:
        raise UserError("there is no text to train a tokenizer on")
    if base is not None:
        trained = base.train_new_from_iterator(sample, vocab_size)
        if model_max_length is not None:
            trained.model_max_length = model_max_length
    else:
        backend = _build_backend(3 if max_digits is None else max_digits)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2 if min_frequency is None else min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(sample, trainer)
        trained = _wrap(backend, 2048 if model_max_length is None else model_max_length)
    if len(trained) < vocab_size:
        logger.warning(
            "the text holds pairs for %d entries only, not vocab_size=%d; a model may still use vocab_size=%d",
            len(trained),
            vocab_size,
            vocab_size,
        )
    return trained


def _refuse_without_effect(**settings: int | None) -> None:
    """Refuse settings that an old tokenizer has decided on."""
    for name, value in settings.items():
        if value is not None:
            raise UserError(
                f"{name}={value} has no effect with a base, whose algorithm is kept: leave one of them out"
            )


def sample_texts(texts: Iterable[str], max_bytes: int, seed: int) -> list[str]:
    """Take an even sample of a stream, at most `max_bytes` long: each time it overflows, half of it is dropped.

    A text longer than the limit is cut.
    """
    rng = random.Random(seed)
    kept: list[str] = []
    size, share = 0, 1.0
    for text in texts:
        if not text or rng.random() >= share:
            continue
        kept.append(text[:max_bytes])
        size += len(kept[-1].encode("utf-8", errors="replace"))
        while size > max_bytes and len(kept) > 1:
            kept = [text for text in kept if rng.random() < 0.5]
            size = sum(len(text.encode("utf-8", errors="replace")) for text in kept)
            share /= 2
    return kept


def build_generation_config(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Build a configuration that stops at the end of the text and of the turn, and pads with the padding token."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TEXT, END_OF_TURN)]
    ends = [token for token in ends if token is not None and token != tokenizer.unk_token_id]
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends or [tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str | None = None) -> dict[str, object]:
    """Describe size, special tokens, template and, for a text, its tokens and bytes per token."""
    facts: dict[str, object] = {
        "entries": len(tokenizer),
        "begin of text": tokenizer.bos_token,
        "end of text": tokenizer.eos_token,
        "padding": tokenizer.pad_token,
        "chat template": "yes" if tokenizer.chat_template else "no",
        "template marks answers": "yes" if "generation" in (tokenizer.chat_template or "") else "no",
    }
    if text:
        tokens = encode_text(tokenizer, text)
        facts["bytes per token"] = round(len(text.encode()) / max(1, len(tokens)), 2)
    return facts


def _build_backend(max_digits: int) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    split = SPLIT_PATTERN.replace("DIGITS", str(max_digits))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _wrap(backend: Tokenizer, model_max_length: int) -> PreTrainedTokenizerFast:
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN_OF_TEXT} $A",
        pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT} $B:1",
        special_tokens=[(BEGIN_OF_TEXT, backend.token_to_id(BEGIN_OF_TEXT))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        extra_special_tokens=[END_OF_TURN, "<|start_header_id|>", "<|end_header_id|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
    )
