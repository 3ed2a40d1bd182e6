"""The one reader behind every data set: sources in shards, shards in blocks, blocks into rows, rows mixed by ratio.

A shard is a group of ranges, a block at most `BLOCK_ROWS` documents of a shard that lie together. A block is read, shuffled,
tokenised and packed by itself, so its rows depend on nothing but where it starts. That is why the rows of a prepared set, of
a stream, and of many machines are the same, and why each can go on from any row.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.suggest import unknown_name_message
from .data_config import DataConfig
from .encoder import BATCH_CHARACTERS, BATCH_ROWS, SKIPPED, Encoder, Example
from .packing import Row, pack, teaches
from .readers import RANGE_BYTES, FileRange
from .report import Report, check_failures
from .row_schemas import is_preference
from .sources import Source, check_source_name, open_source


logger = get_logger(__name__)

# Documents and characters that are shuffled and packed together: enough to fill rows well, little enough for flat memory.
BLOCK_ROWS = 4096
BLOCK_CHARACTERS = 8_000_000
# Rows of a source among which one that is a preference is looked for.
SEARCHED_ROWS = 10_000


@dataclass(frozen=True)
class Shard:
    """File ranges of a source that one process works through.

    Args:
        source: index in the mix.
        number: of the shard, in the order of reading.
        ranges: in the order of reading.
    """

    source: int
    number: int
    ranges: tuple[FileRange, ...]


class Position(NamedTuple):
    """Where a stream of one source stands: the block, and the rows of it that are done."""

    turn: int = 0
    shard: int = 0
    file_range: int = 0
    record: int | None = None
    row: int = 0


class MixReader:
    """Rows of a mix, shard by shard.

    Args:
        config: which data sets, and what to make of them.
        tokenizer: tokenizer of the model.
        held_out: keys of the documents and rows of the test split, which training rows must not hold.
    """

    def __init__(
        self, config: DataConfig, tokenizer: PreTrainedTokenizerBase, held_out: frozenset[int] | None = None
    ) -> None:
        for name in config.names:
            check_source_name(name)
        self.sources = [open_source(name) for name in config.names]
        if config.row_format == "preference" and config.formatting_func is None:
            config, self.sources = _keep_preferences(config, self.sources)
        self.config, self.tokenizer = config, tokenizer
        self.names, self.ratios = config.names, list(config.ratios)
        self.shards = [_group_ranges(source, index, config.seed) for index, source in enumerate(self.sources)]
        self.encoder = Encoder(tokenizer, config)
        self.held_out = held_out
        # Long texts go on in the next row, unless a row is one document.
        self.cuts = config.row_format != "text" or config.packing == "none"

    def read_shard(
        self, shard: Shard, report: Report, start: Position | None = None
    ) -> Iterator[tuple[Row, Position]]:
        """Yield training rows of a shard, each with the position after it.

        Args:
            shard: one of `shards`.
            report: is added to.
            start: where an earlier reading stopped.
        """
        yield from self._read(shard, report, start or Position(0, shard.number), self.held_out or frozenset())

    def find_test_rows(self) -> list[tuple[Row, str]]:
        """Find the test rows and their sources: the first of each. Their documents are kept out of training from now on."""
        counts = share_out(self.config.test_size, self.ratios)
        found: list[list[Row]] = []
        for index, count in enumerate(counts):
            rows: list[Row] = []
            for shard in self.shards[index]:
                if len(rows) < count:
                    for row, _ in self._read(shard, Report(), Position(0, shard.number), frozenset()):
                        rows.append(row)
                        if len(rows) == count:
                            break
            if len(rows) < count:
                raise UserError(
                    f"data set {self.names[index]!r} gives too few rows: {len(rows)}, and test_size="
                    f"{self.config.test_size} leaves none for training; lower test_size or add data"
                )
            found.append(rows)
        test = [row for rows in found for row in rows]
        self.held_out = frozenset(key for row in test for key in (*row.keys, _row_key(row)))
        taken = [iter(rows) for rows in found]
        return [(next(taken[i]), self.names[i]) for i in interleave(self.ratios, counts)]

    def check_first_rows(self) -> None:
        """Read the first rows of each source, so that a wrong field is told before hours of work.

        Raises:
            ValueError: there are none, or none of them can be used, with the reason.
        """
        encoder = self.encoder
        for source in self.sources:
            first = list(islice((r for file_range in source.ranges for r in source.read(file_range)), BATCH_ROWS))
            if not first:
                raise UserError(f"data set {source.name!r} is empty")
            usable = [record for record in first if record.row is not None]
            results = encoder.encode([record.row for record in usable])
            if any(isinstance(result, Example) or result == SKIPPED for result in results):
                continue
            where, why = (usable[0].where, results[0]) if usable else (first[0].where, first[0].problem)
            advice = "set dataset_text_field, pass a formatting_func, or check the stage"
            if why == f"no field {encoder.text_field!r}":
                why = unknown_name_message("field", encoder.text_field, usable[0].row)
                if "input_ids" in usable[0].row:
                    advice = (
                        "its rows are prepared already: name the folder as dataset_name, or train with it as it is"
                    )
            raise UserError(
                f"data set {source.name!r} has no usable row among its first {len(first)}: {where}: {why}; {advice} "
                f"({self.config.row_format})"
            )

    def _read(
        self, shard: Shard, report: Report, start: Position, excluded: frozenset[int]
    ) -> Iterator[tuple[Row, Position]]:
        config = self.config
        for block, here, following in self._read_blocks(shard, report, start):
            is_whole = len(self.shards[shard.source]) == 1 and following.shard > shard.number
            self.check_failures(shard.source, report, is_whole)
            kept = [example for example in block if example.key not in excluded]
            report.held_out += len(block) - len(kept)
            seed = f"{config.seed}/{self.names[shard.source]}/{shard.number}/{here.file_range}/{here.record}"
            rng = random.Random(seed)
            rng.shuffle(kept)
            packed = self._pack(kept)
            rows = [row for row in packed if teaches(row)]
            report.unlearnt += len(packed) - len(rows)
            if excluded:  # pieces of different documents may be the same
                rows = [row for row in rows if _row_key(row) not in excluded]
            rng.shuffle(rows)  # best-fit packing put the longest documents first
            skip = start.row if here[:4] == start[:4] else 0
            for number, row in enumerate(rows):
                if number >= skip:
                    _count(row, report)
                    yield row, (here._replace(row=number + 1) if number + 1 < len(rows) else following)

    def _pack(self, examples: list[Example]) -> list[Row]:
        config = self.config
        if not config.gives_tokens:
            return [Row(keys=[e.key], lengths=[e.size], fields=e.fields) for e in examples]
        return pack(examples, config.max_length, str(config.packing), split_long=config.row_format == "text")

    def _read_blocks(
        self, shard: Shard, report: Report, start: Position
    ) -> Iterator[tuple[list[Example], Position, Position]]:
        """Yield (examples, where the block starts, where the next one starts)."""
        source, encoder = self.sources[shard.source], self.encoder
        here = start._replace(row=0)
        block: list[Example] = []
        batch: list[tuple[dict, str]] = []
        rows = characters = waiting = 0
        for index in range(start.file_range, len(shard.ranges)):
            for record in source.read(shard.ranges[index], start.record if index == start.file_range else None):
                report.rows += 1
                rows += 1
                if record.row is None:
                    report.failed.append({"source": source.name, "where": record.where, "reason": record.problem})
                else:
                    size = _estimate_size(record.row)
                    batch.append((record.row, record.where))
                    characters, waiting = characters + size, waiting + size
                full = rows >= BLOCK_ROWS or characters >= BLOCK_CHARACTERS
                if full or len(batch) >= BATCH_ROWS or waiting >= BATCH_CHARACTERS:
                    block += _encode(encoder, source, batch, report, self.cuts)
                    batch, waiting = [], 0
                if full:
                    following = here._replace(file_range=index, record=record.next)
                    yield block, here, following
                    block, here, rows, characters = [], following, 0, 0
        block += _encode(encoder, source, batch, report, self.cuts)
        if block:
            yield block, here, Position(start.turn, shard.number + 1)

    def check_failures(self, index: int, report: Report, whole: bool = True, failures: Path | None = None) -> None:
        """Refuse a source that lost too many rows, of all that it has or of a shard.

        Raises:
            ValueError: more than `max_bad_rows` or `max_bad_share`, with the first reasons.
        """
        check_failures(self.names[index], report, self.config, whole, failures)


def choose_source(ratios: list[float], taken: list[int], alive: list[int]) -> int:
    """Choose which of the sources `alive` gives the next row, by the highest-averages rule of Webster.

    A prepared set and a stream both follow it, which is why their rows come in the same order.
    """
    return min(alive, key=lambda i: ((taken[i] + 0.5) / ratios[i], i))


def interleave(ratios: list[float], counts: list[int]) -> Iterator[int]:
    """Give the source of each row, as `choose_source` does; one that is used up drops out.

    Args:
        ratios: shares.
        counts: rows of each, -1 for no end.
    """
    taken = [0] * len(ratios)
    alive = [i for i, count in enumerate(counts) if count != 0]
    while alive:
        index = choose_source(ratios, taken, alive)
        taken[index] += 1
        yield index
        if taken[index] == counts[index]:
            alive.remove(index)


def share_out(total: int, ratios: list[float]) -> list[int]:
    """Share out `total` as whole numbers in proportion to `ratios`, by largest remainder."""
    exact = [total * ratio for ratio in ratios]
    counts = [math.floor(x + 1e-9) for x in exact]
    order = sorted(range(len(ratios)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _keep_preferences(config: DataConfig, sources: list[Source]) -> tuple[DataConfig, list[Source]]:
    """Return a mix for DPO without the sources that hold no preferences; the others keep their proportions."""
    kept = []
    for index, source in enumerate(sources):
        rows = (record.row for file_range in source.ranges for record in source.read(file_range))
        if any(row is not None and is_preference(row) for row in islice(rows, SEARCHED_ROWS)):
            kept.append(index)
        else:
            logger.warning("data set %r holds no preferences: DPO leaves it out", source.name)
    if not kept:
        raise UserError("none of the data sets holds preferences, rows with chosen and rejected answers")
    shares = list(zip(config.names, config.ratios, strict=True))
    total = math.fsum(shares[i][1] for i in kept)
    remaining = [{shares[i][0]: shares[i][1] / total} for i in kept]
    return replace(config, datasets_and_ratios=remaining), [sources[i] for i in kept]


def _group_ranges(source: Source, index: int, seed: int) -> list[Shard]:
    """Group ranges in a seeded order, small ones together."""
    ranges = list(source.ranges)
    random.Random(f"{seed}/{source.name}").shuffle(ranges)
    groups: list[list[FileRange]] = [[]]
    for file_range in ranges:
        if groups[-1] and sum(p.size for p in groups[-1]) + file_range.size > RANGE_BYTES:
            groups.append([])
        groups[-1].append(file_range)
    return [Shard(index, number, tuple(group)) for number, group in enumerate(groups)]


def _encode(
    encoder: Encoder, source: Source, batch: list[tuple[dict, str]], report: Report, cuts: bool
) -> list[Example]:
    examples = []
    for (_, where), result in zip(batch, encoder.encode([row for row, _ in batch]), strict=True):
        if isinstance(result, Example):
            report.documents += 1
            report.cut += cuts and result.size > encoder.config.max_length
            examples.append(result)
        elif result == SKIPPED:
            report.skipped += 1
        else:
            report.failed.append({"source": source.name, "where": where, "reason": result})
    return examples


def _estimate_size(row: dict[str, Any]) -> int:
    """Characters of a row, near enough to bound a block."""
    return sum(len(value) if isinstance(value, str) else 16 + len(str(value)) for value in row.values())


def _row_key(row: Row) -> int:
    return xxhash.xxh64_intdigest(row.tokens.tobytes()) if row.tokens is not None else row.keys[0]


def _count(row: Row, report: Report) -> None:
    report.packed_rows += 1
    report.tokens += sum(row.lengths)
    if row.labels is not None:
        report.learnt += int(np.count_nonzero(row.labels != -100))
