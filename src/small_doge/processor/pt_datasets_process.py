"""Named sources and ratios into a data set for pre-training."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset, DatasetDict, Features, Sequence, Value, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from ..utils.logging import get_logger
from ..utils.suggest import unknown_name_message
from .packing import pack_best_fit, split_document
from .sources import check_source_name, default_text_field, open_source, parse_row


logger = get_logger(__name__)

PACKED_FEATURES = Features({"input_ids": Sequence(Value("int32")), "seq_lengths": Sequence(Value("int32"))})
DEFAULT_MAX_BAD_ROWS = 1000


def mix_datasets_by_ratio(
    datasets_and_ratios: list[dict[str, float]],
    total_sample_size: int = -1,
    dataset_text_field: str | None = None,
    processing_class: PreTrainedTokenizerBase | None = None,
    max_length: int = 2048,
    packing: bool = True,
    formatting_func: Callable[[dict], Any] | None = None,
    dataset_num_proc: int | None = None,
    seed: int = 233,
    cache_dir: str | None = None,
    test_size: int = 0,
    max_bad_rows: int = DEFAULT_MAX_BAD_ROWS,
) -> DatasetDict:
    """Read, tokenise, pack and mix sources. The same seed gives the same bytes, whatever the number of processes.

    Args:
        datasets_and_ratios: one-key dicts {name: ratio}; see `small_doge.processor.sources.open_source` for names.
            The ratios sum to 1.
        total_sample_size: rows after packing, shared out by ratio; a source with too few repeats. -1 takes every row
            of every source once, whatever the ratios.
        dataset_text_field: field with the text; "text" or what the source is known for if None.
        processing_class: tokenizer.
        max_length: tokens of a row.
        packing: several whole documents a row; else one document a row, cut at `max_length`.
        formatting_func: makes of a row a text, {"text"}, {"messages"} or {"conversation"}.
        dataset_num_proc: processes that tokenise.
        seed: of the order of documents and rows.
        cache_dir: where rows are kept between runs.
        test_size: rows of a test split that shares no row with the training split.
        max_bad_rows: rows without usable text that a source may have; they are skipped and reported.

    Returns:
        `train` and, if asked for, `test`, with `input_ids` and `seq_lengths`.

    Raises:
        ValueError: ratios, names, fields or sizes that don't fit, an empty source, too many bad rows.
    """
    if processing_class is None:
        raise ValueError("processing_class is missing: pass a tokenizer")
    if max_length < 2:
        raise ValueError(f"max_length={max_length} must be at least 2")
    if total_sample_size != -1 and total_sample_size < 1:
        raise ValueError(f"total_sample_size={total_sample_size} must be positive, or -1 for all")
    shares = _read_shares(datasets_and_ratios)
    for name, _ in shares:
        check_source_name(name)
    packed = []
    for name, _ in shares:
        texts = open_source(name, cache_dir)
        documents = tokenize_source(
            texts, name, processing_class, dataset_text_field, formatting_func, dataset_num_proc, max_bad_rows
        )
        packed.append(_pack(documents.shuffle(seed=seed), max_length, packing, cache_dir))
    return _mix(shares, packed, total_sample_size, test_size, seed)


def mix_datasets_by_radio(*args: Any, **kwargs: Any) -> DatasetDict:
    """The guides' spelling of `mix_datasets_by_ratio`."""
    return mix_datasets_by_ratio(*args, **kwargs)


def _read_shares(datasets_and_ratios: list[dict[str, float]]) -> list[tuple[str, float]]:
    shares = []
    for entry in datasets_and_ratios:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ValueError(f"datasets_and_ratios: each entry is a dict of one name and its ratio, got {entry!r}")
        ((name, ratio),) = entry.items()
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise ValueError(f"datasets_and_ratios: the ratio of {name!r} is {ratio!r}; it must lie in (0, 1]")
        shares.append((name, float(ratio)))
    if not shares:
        raise ValueError("datasets_and_ratios is empty: name at least one data set")
    total = math.fsum(ratio for _, ratio in shares)
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"datasets_and_ratios: the ratios sum to {total:g}, not 1")
    return shares


def tokenize_source(
    rows: Dataset,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    text_field: str | None,
    formatting_func: Callable[[dict], Any] | None,
    num_proc: int | None,
    max_bad_rows: int,
) -> Dataset:
    """Documents of one source as token lists, each between the begin and end tokens; bad rows reported and skipped."""
    field = text_field or default_text_field(name)
    first = parse_row(rows[0])
    usable = rows[0].get("_problem", "") == ""
    if formatting_func is None and usable and field not in first and not ({"messages", "conversation"} & set(first)):
        raise ValueError(
            unknown_name_message("field", field, first)
            + f" (data set {name!r}); set dataset_text_field, or pass a formatting_func"
        )
    tokenized = rows.map(
        _tokenize_batch,
        batched=True,
        batch_size=256,
        fn_kwargs={"tokenizer": tokenizer, "field": field, "formatting_func": formatting_func},
        num_proc=num_proc if num_proc and num_proc > 1 else None,
        remove_columns=rows.column_names,
        features=Features({"input_ids": Sequence(Value("int32")), "problem": Value("string")}),
        desc=f"tokenising {name}",
    )
    problems = [(i, why) for i, why in enumerate(tokenized["problem"]) if why]
    if problems:
        _report_problems(name, problems, len(tokenized), max_bad_rows)
        bad = {i for i, _ in problems}
        tokenized = tokenized.select([i for i in range(len(tokenized)) if i not in bad])
    if len(tokenized) == 0:
        raise ValueError(f"data set {name!r} has no usable row")
    return tokenized.remove_columns("problem")


def _report_problems(name: str, problems: list[tuple[int, str]], total: int, limit: int) -> None:
    shown = "; ".join(f"row {i}: {why}" for i, why in problems[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    if len(problems) > limit:
        raise ValueError(
            f"data set {name!r}: {len(problems)} of {total} rows can't be used, more than max_bad_rows={limit} allows: "
            f"{shown}{more}"
        )
    logger.warning("data set %r: skipped %d of %d rows: %s%s", name, len(problems), total, shown, more)


def _tokenize_batch(
    batch: dict[str, list], tokenizer: PreTrainedTokenizerBase, field: str, formatting_func: Callable | None
) -> dict[str, list]:
    names = list(batch)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    texts: list[str] = []
    problems: list[str] = []
    for row in rows:
        problem = row.pop("_problem", "") or ""
        text = ""
        if not problem:
            text, problem = _render(parse_row(row), tokenizer, field, formatting_func)
        texts.append(text)
        problems.append(problem)
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    documents: list[list[int]] = []
    for ids, problem in zip(encoded, problems, strict=True):
        if problem:
            documents.append([])
            continue
        head = [begin] if begin is not None and ids[:1] != [begin] else []
        tail = [end] if end is not None and ids[-1:] != [end] else []
        documents.append(head + list(ids) + tail)
    return {"input_ids": documents, "problem": problems}


def _render(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, field: str, formatting_func: Callable | None
) -> tuple[str, str]:
    """The text of a row, or why it has none."""
    content: Any = formatting_func(row) if formatting_func is not None else row
    if isinstance(content, dict):
        messages = content.get("messages") or content.get("conversation")
        default = "text" if formatting_func is not None else field
        if messages is not None and (formatting_func is not None or content.get(default) is None):
            return tokenizer.apply_chat_template(messages, tokenize=False), ""
        if default not in content:
            return "", f"no field {default!r}"
        content = content[default]
    if content is None:
        return "", f"{field} is null"
    if not isinstance(content, str):
        return "", f"{field} is {type(content).__name__}, not text"
    if not content.strip():
        return "", f"{field} is empty"
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        return "", f"{field} is not valid Unicode"
    return content, ""


def _pack(documents: Dataset, max_length: int, packing: bool, cache_dir: str | None) -> Dataset:
    rows = Dataset.from_generator(
        _iterate_packed,
        gen_kwargs={"documents": documents, "max_length": max_length, "packing": packing},
        features=PACKED_FEATURES,
        cache_dir=cache_dir,
    )
    if packing:
        filled = sum(sum(lengths) for lengths in rows["seq_lengths"])
        logger.info(
            "packed %d documents into %d rows, %.1f%% full",
            len(documents),
            len(rows),
            100 * filled / (len(rows) * max_length),
        )
    return rows


def _iterate_packed(documents: Dataset, max_length: int, packing: bool) -> Iterator[dict]:
    tokens = (ids for batch in documents.iter(256) for ids in batch["input_ids"])
    if packing:
        yield from pack_best_fit(tokens, max_length)
        return
    for ids in tokens:
        piece = split_document(ids, max_length)[0]
        yield {"input_ids": piece, "seq_lengths": [len(piece)]}


def _mix(shares: list[tuple[str, float]], packed: list[Dataset], total: int, test_size: int, seed: int) -> DatasetDict:
    train, test = [], []
    ratios = [ratio for _, ratio in shares]
    if total == -1 and len(shares) > 1:
        logger.info("total_sample_size=-1: every row of every data set is used once, whatever the ratios")
        ratios = [len(rows) / sum(map(len, packed)) for rows in packed]
    test_counts = share_out(test_size, ratios)
    train_counts = [-1] * len(shares) if total == -1 else share_out(total, ratios)
    for (name, _), rows, num_test, wanted in zip(shares, packed, test_counts, train_counts, strict=True):
        if num_test >= len(rows):
            raise ValueError(f"data set {name!r} has {len(rows)} rows; test_size={test_size} leaves none for training")
        # Packing sorts documents by length within a window, so rows are shuffled before any are taken.
        rows = rows.shuffle(seed=seed)
        held_out = rows.select(range(num_test))
        test.append(held_out)
        rows = _without(rows.select(range(num_test, len(rows))), held_out)
        available = len(rows)
        wanted = available if wanted == -1 else wanted
        if wanted > available:
            logger.warning(
                "data set %r has %d rows, %d are wanted: it repeats %.1f times",
                name,
                available,
                wanted,
                wanted / available,
            )
        train.append(rows.select([i % available for i in range(wanted)]))
    splits = {"train": concatenate_datasets(train).shuffle(seed=seed).flatten_indices()}
    if test_size:
        splits["test"] = concatenate_datasets(test).shuffle(seed=seed).flatten_indices()
    return DatasetDict(splits)


def _without(rows: Dataset, held_out: Dataset) -> Dataset:
    """Rows that do not also stand among the held-out ones: sources repeat themselves."""
    if len(held_out) == 0:
        return rows
    excluded = {tuple(ids) for ids in held_out["input_ids"]}
    seen = (tuple(ids) for batch in rows.iter(1000) for ids in batch["input_ids"])
    kept = [index for index, ids in enumerate(seen) if ids not in excluded]
    if not kept:
        raise ValueError("every training row also stands in the test split; lower test_size or add data")
    return rows if len(kept) == len(rows) else rows.select(kept)


def share_out(total: int, ratios: list[float]) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to `ratios`, by largest remainder."""
    exact = [total * ratio for ratio in ratios]
    counts = [math.floor(x + 1e-9) for x in exact]
    order = sorted(range(len(ratios)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
