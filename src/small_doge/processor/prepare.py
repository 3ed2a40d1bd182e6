"""A mix on disk: shard files that a killed run goes on from, joined into one data set."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import datasets.config
import dill
import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from ..utils.files import read_json_lines, write_json
from ..utils.logging import get_logger
from ..utils.processes import end_with
from .data_config import DataConfig
from .encoder import row_schema
from .mix_reader import MixReader, Shard, interleave, share_out
from .packing import Row
from .report import FAILED, Report, describe_failures, keep_failures, tell_losses


logger = get_logger(__name__)

PREPARED_BY = "small-doge data prepare"
BATCH = 1000
REPORT, FINISHED = "report.json", "finished.json"
# Of how rows are read and encoded: rows that an earlier version prepared are not taken for this one's.
VERSION = 2
# Settings that change where, how fast and how strictly rows are made, and not the rows.
NOT_IN_ROWS = {"formatting_func", "streaming", "max_bad_rows", "max_bad_share", "dataset_num_proc", "cache_dir"}


def prepare(config: DataConfig, tokenizer: PreTrainedTokenizerBase, failures: Path | None = None) -> DatasetDict:
    """Prepare a mix on disk, or go on with one that was begun, or load one that is done.

    Args:
        config: which data sets, and what to make of them; `cache_dir` keeps a folder for each mix.
        tokenizer: tokenizer of the model.
        failures: where the caller will put the list of rows that can't be used, for messages.

    Returns:
        `train` and, if asked for, `test`.

    Raises:
        UserError: the disk is full, or a process was killed; the same call goes on.
        ValueError: sources that can't be read, are empty, or lose too many rows.
    """
    preparation = Preparation(config, tokenizer, failures)
    if preparation.is_finished:
        logger.info("data: using %s", preparation.folder)
        preparation.check_failures()
    else:
        with explained(preparation.folder):
            preparation.make_shards()
            preparation.join()
    return preparation.load()


def default_cache_dir() -> Path:
    """Return the folder for prepared rows beside the caches of `datasets`."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "small-doge"


class Preparation:
    """The folder in which a mix is prepared.

    Args:
        config: which data sets, and what to make of them.
        tokenizer: tokenizer of the model.
        failures: where the caller will put the list of rows that can't be used; it stays in the folder if None.
    """

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerBase, failures: Path | None = None) -> None:
        self.reader = MixReader(config, tokenizer)
        config = self.config = self.reader.config
        cache = Path(config.cache_dir or default_cache_dir())
        self.folder = cache / f"prepared-{_compute_key(config, tokenizer, self.reader)}"
        self.failures = failures or self.folder / FAILED
        self.schema = row_schema(config)
        self.names, self.total = self.reader.names, config.total_sample_size
        self.train_counts = [-1] * len(self.names) if self.total == -1 else share_out(self.total, self.reader.ratios)

    @property
    def is_finished(self) -> bool:
        """Whether all is there."""
        return (self.folder / FINISHED).is_file()

    def start(self) -> None:
        """Check the first rows, and choose the test rows; done once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = self.folder / "held_out.json"
        if not chosen.is_file():
            self.reader.check_first_rows()
            rows = self.reader.find_test_rows()
            if rows:
                _write_rows(self.folder / "test.arrow", iter(rows), self.schema, self.reader)
            write_json(chosen, sorted(self.reader.held_out))
        self.reader.held_out = frozenset(json.loads(chosen.read_text(encoding="utf-8")))

    def make_shards(self) -> None:
        """Write the shards that are still missing, until each source has the rows that are wanted of it."""
        self.start()
        shards = [shard for group in self.reader.shards for shard in group]
        with tqdm(total=len(shards), desc="preparing", unit="shard", disable=None, dynamic_ncols=True) as bar:
            processes = min(self.config.dataset_num_proc or os.cpu_count() or 1, len(shards))
            if processes > 1:
                self._make_in_processes(shards, processes, bar)
                return
            for group in self.reader.shards:
                for shard in group:
                    if not self._has_enough(shard):
                        report = self.make_shard(shard)
                        bar.set_postfix_str(f"{report.tokens:,} tokens of {self.names[shard.source]}")
                    bar.update()

    def make_shard(self, shard: Shard) -> Report:
        """Write one shard, if it is not there: rows, and what happened to them."""
        rows, summary = self._shard_files(shard)
        if summary.is_file():
            return _read_report(summary)
        report = Report()
        name = self.names[shard.source]
        wanted = self.train_counts[shard.source]
        pairs = ((row, name) for row, _ in self.reader.read_shard(shard, report))
        # Not a row more than can be used: the rows of a shard do not depend on how many of them are read.
        try:
            _write_rows(rows, pairs if wanted == -1 else islice(pairs, wanted), self.schema, self.reader)
        finally:
            keep_failures(self.folder / "shards" / f"{summary.stem}.failed.jsonl", [report])
        write_json(summary, asdict(report))
        return report

    def _make_in_processes(self, shards: list[Shard], num_proc: int, bar: tqdm) -> None:
        method = "fork" if "fork" in get_all_start_methods() else "spawn"
        payload = dill.dumps(self)
        with ProcessPoolExecutor(
            num_proc, get_context(method), initializer=_load_worker, initargs=(payload, os.getpid())
        ) as pool:
            for start in range(0, len(shards), num_proc):
                batch = [shard for shard in shards[start : start + num_proc] if not self._has_enough(shard)]
                for report in pool.map(_make_shard, batch):
                    bar.set_postfix_str(f"{report.tokens:,} tokens")
                bar.update(len(shards[start : start + num_proc]))

    def is_made(self, shard: Shard) -> bool:
        """Tell whether a shard is there."""
        return self._shard_files(shard)[1].is_file()

    def _has_enough(self, shard: Shard) -> bool:
        """Tell whether the shards before this one give all the rows that are wanted."""
        wanted = self.train_counts[shard.source]
        if wanted == -1:
            return False
        earlier = [self._shard_files(u)[1] for u in self.reader.shards[shard.source][: shard.number]]
        return sum(_read_report(path).packed_rows for path in earlier if path.is_file()) >= wanted

    def _shard_files(self, shard: Shard) -> tuple[Path, Path]:
        stem = self.folder / "shards" / f"{shard.source:03d}-{shard.number:06d}"
        return stem.with_suffix(".arrow"), stem.with_suffix(".json")

    def join(self) -> None:
        """Interleave the shards' rows into `train.arrow`, write the report and the failed rows, and drop the shards.

        Raises:
            ValueError: a source without rows, or with too many failed ones.
        """
        reports, tables = [], []
        for index, group in enumerate(self.reader.shards):
            made = [shard for shard in group if self._shard_files(shard)[1].is_file()]
            report = Report()
            for shard in made:
                report.add(_read_report(self._shard_files(shard)[1]))
            reports.append(report)
            tables.append([_open_table(self._shard_files(shard)[0]) for shard in made])
            keep_failures(self.folder / FAILED, reports)
            self.reader.check_failures(index, report, failures=self.folder / FAILED)
            if sum(len(table) for table in tables[-1]) == 0:
                self._raise_empty(index, report)
        self._warn(reports)
        available = [sum(map(len, group)) for group in tables]
        counts = available if self.total == -1 else self.train_counts
        _join_tables(self.folder / "train.arrow", tables, interleave(self.reader.ratios, counts), self.schema)
        write_json(self.folder / REPORT, self._describe(reports, available, counts))
        write_json(self.folder / FINISHED, {"finished_at": time.time()})
        del tables
        shutil.rmtree(self.folder / "shards")

    def check_failures(self) -> None:
        """Hold the failed rows of a finished preparation against the present limits."""
        path = self.folder / FAILED
        failed = list(read_json_lines(path)) if path.is_file() else []
        sources = json.loads((self.folder / REPORT).read_text("utf-8"))["sources"]
        for index, name in enumerate(self.names):
            mine = [row for row in failed if row["source"] == name]
            self.reader.check_failures(index, Report(rows=sources[name]["rows"], failed=mine))

    def load(self) -> DatasetDict:
        """Load the finished data set, mapped from disk."""
        splits = {name: self.folder / f"{name}.arrow" for name in ("train", "test")}
        return DatasetDict({name: Dataset.from_file(str(path)) for name, path in splits.items() if path.is_file()})

    def _raise_empty(self, index: int, report: Report) -> None:
        name = self.names[index]
        if report.held_out:
            raise UserError(
                f"data set {name!r}: every training row also stands in the test split; lower test_size={self.config.test_size} "
                "or add data"
            )
        raise UserError(f"data set {name!r} has no usable row: {describe_failures(report)}")

    def _warn(self, reports: list[Report]) -> None:
        if self.total == -1 and len(self.names) > 1:
            logger.info("total_sample_size=-1: every row of every data set is used once, whatever the ratios")
        for name, wanted, report in zip(self.names, self.train_counts, reports, strict=True):
            tell_losses(name, report, self.config.max_length, self.failures)
            if report.packed_rows < wanted:
                times = wanted / report.packed_rows
                logger.warning(
                    "data set %r gives %d of the %d rows that are wanted: it repeats %.1f times",
                    name,
                    report.packed_rows,
                    wanted,
                    times,
                )

    def _describe(self, reports: list[Report], available: list[int], counts: list[int]) -> dict[str, Any]:
        config = self.config
        sources = {}
        for name, ratio, report, rows, used in zip(
            self.names, self.reader.ratios, reports, available, counts, strict=True
        ):
            facts = {k: v for k, v in asdict(report).items() if k != "failed"}
            facts |= {"failed": len(report.failed), "ratio": ratio, "available": rows, "used": used}
            if config.gives_tokens:
                facts["fill_rate"] = round(report.tokens / max(1, report.packed_rows * config.max_length), 4)
            sources[name] = facts
        packed, tokens = (sum(getattr(r, name) for r in reports) for name in ("packed_rows", "tokens"))
        if config.gives_tokens and self.config.packing != "none":
            logger.info(
                "packed %d documents into %d rows, %.1f%% full",
                sum(r.documents for r in reports),
                packed,
                100 * tokens / (packed * config.max_length),
            )
        return {**_rows_depend_on(config), "sources": sources}


_worker: Preparation | None = None


def _load_worker(payload: bytes, parent: int) -> None:
    global _worker
    end_with(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker = dill.loads(payload)


def _make_shard(shard: Shard) -> Report:
    return _worker.make_shard(shard)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Explain failures of the machine in words; what was done stays."""
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a process that prepares data was killed, perhaps for want of memory. Run the same command again: it goes "
            f"on from {folder}; dataset_num_proc=1 needs the least memory"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"the disk of {folder} is full. Free some space, or set cache_dir to another disk, and run the same "
            "command again: finished shards are kept"
        ) from error


def _rows_depend_on(config: DataConfig) -> dict[str, Any]:
    """Return the settings that rows depend on, functions aside."""
    return {field.name: getattr(config, field.name) for field in fields(DataConfig) if field.name not in NOT_IN_ROWS}


def _compute_key(config: DataConfig, tokenizer: PreTrainedTokenizerBase, reader: MixReader) -> str:
    """Hash what the rows depend on: settings, tokenizer, and the files of the sources."""
    function = Hasher.hash(config.formatting_func) if config.formatting_func else None
    ranges = [asdict(file_range) for source in reader.sources for file_range in source.ranges]
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(sorted(tokenizer.get_vocab().items()))
    specials = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template]
    known = [VERSION, _rows_depend_on(config), function, ranges, backend, specials]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


def build_columns(rows: list[tuple[Row, str]], schema: pa.Schema, reader: MixReader) -> pa.RecordBatch:
    """Build Arrow columns from rows and the names of their sources."""
    columns: dict[str, pa.Array] = {"source": pa.array([name for _, name in rows], pa.string())}
    if "input_ids" in schema.names:
        columns["seq_lengths"] = _list_array([np.asarray(row.lengths, dtype=np.int32) for row, _ in rows])
        tokens, labels = [row.tokens for row, _ in rows], [row.labels for row, _ in rows]
        if "attention_mask" in schema.names:
            length, padding = reader.config.max_length, reader.tokenizer.pad_token_id
            columns["attention_mask"] = _list_array(
                [np.pad(np.ones(len(t), dtype=np.int32), (0, length - len(t))) for t in tokens]
            )
            tokens = [np.pad(t, (0, length - len(t)), constant_values=padding) for t in tokens]
            labels = [x if x is None else np.pad(x, (0, length - len(x)), constant_values=-100) for x in labels]
        columns["input_ids"] = _list_array(tokens)
        if "labels" in schema.names:
            learnt = [t if x is None else x for t, x in zip(tokens, labels, strict=True)]
            columns["labels"] = _list_array(learnt)
    else:
        for name in schema.names:
            if name != "source":
                columns[name] = pa.array([row.fields[name] for row, _ in rows], schema.field(name).type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _list_array(values: list[np.ndarray]) -> pa.ListArray:
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(v) for v in values], out=offsets[1:])
    joined = np.concatenate(values) if values else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined.astype(np.int32, copy=False)))


def _write_rows(path: Path, rows: Iterator[tuple[Row, str]], schema: pa.Schema, reader: MixReader) -> None:
    with _arrow_file(path, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_batch(build_columns(batch, schema, reader))


class _arrow_file:
    """A file in the form that `datasets` maps, which takes its name when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}")
        self.writer = pa.ipc.new_stream(str(self.temporary), schema)

    def __enter__(self) -> pa.RecordBatchStreamWriter:
        return self.writer

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.writer.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def _open_table(path: Path) -> pa.Table:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _join_tables(path: Path, tables: list[list[pa.Table]], order: Iterator[int], schema: pa.Schema) -> None:
    """Write rows of several sources in the given order; a source that is used up begins again."""
    joined = [pa.concat_tables(group) for group in tables]
    taken = [0] * len(joined)
    with _arrow_file(path, schema) as writer:
        while chosen := np.fromiter(islice(order, BATCH), dtype=np.int64).tolist():
            slices: list[pa.Table] = []
            start_of: dict[int, int] = {}
            for index in sorted(set(chosen)):
                start_of[index] = sum(map(len, slices))
                slices.append(_take_in_turn(joined[index], taken[index], chosen.count(index)))
                taken[index] += chosen.count(index)
            places = []
            for index in chosen:
                places.append(start_of[index])
                start_of[index] += 1
            writer.write_table(pa.concat_tables(slices).combine_chunks().take(pa.array(places)))


def _take_in_turn(table: pa.Table, start: int, count: int) -> pa.Table:
    pieces = []
    while count:
        begin = start % len(table)
        pieces.append(table.slice(begin, count))
        count -= len(pieces[-1])
        start += len(pieces[-1])
    return pa.concat_tables(pieces)


def _read_report(path: Path) -> Report:
    return Report(**json.loads(path.read_text(encoding="utf-8")))
