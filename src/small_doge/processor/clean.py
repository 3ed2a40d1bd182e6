"""Dropping texts that teach little: each with its reason, by datatrove's filters and duplicate finders."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.files import check_output_path, write_json
from ..utils.logging import get_logger
from ..utils.suggest import unknown_name_message
from .choices import FILTERS
from .row_schemas import iterate_texts
from .scale import Cluster, import_datatrove, run_steps
from .sources import open_source


logger = get_logger(__name__)

REPORT = "report.json"
# Beside the names of filters: where rows go that can't be read or have no text.
UNUSABLE = "unusable"


@dataclass(frozen=True)
class Cleaning:
    """What to drop.

    Args:
        filters: names of `FILTERS`.
        text_field: field with the text; `text`, or the messages of a conversation, if None.
        min_words: for `length`.
        max_words: for `length`.
        evaluation_sets: sources whose texts must not be in the data.
        overlap_words: words of a run that counts as overlap.
    """

    filters: tuple[str, ...] = tuple(name for name in FILTERS if name != "evaluation_overlap")
    text_field: str | None = None
    min_words: int = 10
    max_words: int = 100_000
    evaluation_sets: tuple[str, ...] = ()
    overlap_words: int = 12

    def __post_init__(self) -> None:
        for name in self.filters:
            if name not in FILTERS:
                raise UserError(unknown_name_message("filter", name, FILTERS))
        if not self.filters:
            raise UserError("filters is empty: name at least one")
        if ("evaluation_overlap" in self.filters) != bool(self.evaluation_sets):
            raise UserError("the filter evaluation_overlap and evaluation sets go together: give both or neither")
        if not 0 < self.min_words <= self.max_words:
            raise UserError(f"min_words={self.min_words} must be positive and at most max_words={self.max_words}")


@dataclass
class CleaningReport:
    """Rows that were read, kept, and dropped by filter and reason."""

    rows: int = 0
    kept: int = 0
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)


def clean(
    names: list[str], output: Path, cleaning: Cleaning | None = None, cluster: Cluster | None = None
) -> CleaningReport | None:
    """Write the rows of sources that pass every filter to `output/*.jsonl.gz`, and the others beside, with the reason.

    A run that was stopped goes on from its finished tasks.

    Args:
        names: of the sources.
        output: a new folder, which is then a source itself.
        cleaning: what to drop.
        cluster: where tasks run.

    Returns:
        What was dropped and why, also in `report.json`; None while tasks on a cluster are still to run.

    Raises:
        ValueError: unknown names.
        UserError: datatrove is missing, a task failed, or the folder holds something else.
    """
    cleaning, cluster = cleaning or Cleaning(), cluster or Cluster()
    import_datatrove()
    sources = [*map(open_source, names), *(open_source(name, all_splits=True) for name in cleaning.evaluation_sets)]
    files = [[file_range.path, file_range.version] for source in sources for file_range in source.ranges]
    _claim(output, json.dumps([names, vars(cleaning), files], default=list))
    if (output / REPORT).is_file():
        return CleaningReport(**json.loads((output / REPORT).read_text(encoding="utf-8"))["counts"])
    work = output / ".work"
    steps = _plan(names, output, cleaning, work)
    run_steps(steps, cluster, work / "logs", "clean")
    done = work / "logs" / f"{len(steps) - 1}-clean" / "completions"
    if not done.is_dir() or len(list(done.iterdir())) < steps[-1][1]:
        logger.info("tasks were handed to %s; run the same command again when they are done", cluster.executor)
        return None
    report = _count(output, cleaning)
    write_json(output / REPORT, {"sources": names, "settings": vars(cleaning), "counts": vars(report)})
    shutil.rmtree(work, ignore_errors=True)
    return report


def _claim(output: Path, key: str) -> None:
    """Claim a folder for one cleaning."""
    check_output_path(output)
    mark = output / "cleaning.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) != json.loads(key):
        raise UserError(
            f"{output} holds the result of other sources, files or settings; choose another --output or delete it"
        )
    if not mark.is_file() and output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; choose another --output")
    write_json(mark, json.loads(key))


def _plan(names: list[str], output: Path, cleaning: Cleaning, work: Path) -> list[tuple[list, int]]:
    """Plan pipelines and their numbers of tasks. Each stage of duplicates reads what the one before wrote."""
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    tasks = sum(len(open_source(name).ranges) for name in names)
    single = [name for name in FILTERS if name in cleaning.filters and not name.endswith("_duplicates")]
    stages = [name for name in FILTERS if name in cleaning.filters and name.endswith("_duplicates")]

    def drop(name: str) -> JsonlWriter:
        return JsonlWriter(str(output / "dropped" / name), adapter=_with_reason)

    def write(stage: int) -> JsonlWriter:
        if stage == len(stages):
            return JsonlWriter(str(output), "clean-${rank}.jsonl.gz", adapter=_original_row)
        return JsonlWriter(str(work / f"stage-{stage}"))

    if "evaluation_overlap" in single:
        _index_evaluation_sets(cleaning, work / "evaluation")
    filters = [_build_filter(name, cleaning, work, drop(name)) for name in single]
    reader = _make_reader(names, cleaning.text_field, drop(UNUSABLE))
    steps = [([reader, *filters, write(0)], tasks)]
    for number, name in enumerate(stages):

        def read(number: int = number) -> JsonlReader:
            return JsonlReader(str(work / f"stage-{number}"), shuffle_files=False)

        build = _exact_steps if name == "exact_duplicates" else _near_steps
        steps += build(read, work / name, drop(name), write(number + 1), tasks)
    return steps


def _build_filter(name: str, cleaning: Cleaning, work: Path, writer: Any) -> Any:
    from datatrove.pipeline import filters

    if name == "length":
        off = {
            "min_avg_word_length": None,
            "max_avg_word_length": None,
            "max_symbol_word_ratio": None,
            "max_bullet_lines_ratio": None,
            "max_ellipsis_lines_ratio": None,
            "max_non_alpha_words_ratio": None,
            "min_stop_words": None,
        }
        return filters.GopherQualityFilter(cleaning.min_words, cleaning.max_words, **off, exclusion_writer=writer)
    if name == "gopher_repetition":
        return filters.GopherRepetitionFilter(exclusion_writer=writer)
    if name == "gopher_quality":  # length has a filter of its own
        return filters.GopherQualityFilter(min_doc_words=None, max_doc_words=None, exclusion_writer=writer)
    if name == "fineweb":
        return filters.FineWebQualityFilter(exclusion_writer=writer)
    from datatrove.pipeline.decont import NGramsDecontFilter

    return NGramsDecontFilter(str(work / "evaluation"), _overlap_config(cleaning), exclusion_writer=writer)


def _hashing() -> Any:
    """Give datatrove's xxhash function bytes: it passes on text, which xxhash refuses since its version 4."""
    from datatrove.utils.hashing import HashConfig

    return HashConfig(hash_fc="sha1")


def _overlap_config(cleaning: Cleaning) -> Any:
    from datatrove.pipeline.decont import NGramsDecontConfig

    return NGramsDecontConfig(n_grams=cleaning.overlap_words, hash_config=_hashing())


def _index_evaluation_sets(cleaning: Cleaning, folder: Path) -> None:
    """Hash the runs of words of evaluation texts, in the form that datatrove's filter loads.

    Its own indexer is used for the hashes alone: run as a step, it demands lighteval and the network.
    """
    from datatrove.pipeline.decont import NGramsDecontIndexer
    from datatrove.utils.hashing import create_hash_func
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    config = _overlap_config(cleaning)
    indexer = SimpleNamespace(
        config=config, tokenizer=load_word_tokenizer("eng"), hash_func=create_hash_func(config.hash_config)
    )
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(cleaning.evaluation_sets):
        hashes: set[int] = set()
        source = open_source(name, all_splits=True)
        for file_range in source.ranges:
            for record in source.read(file_range):
                for text in iterate_evaluation_texts(record.row or {}):
                    hashes.update(NGramsDecontIndexer.compute_hashes(indexer, text))
        if not hashes:
            raise UserError(f"evaluation set {name!r} has no text of {cleaning.overlap_words} words")
        stem = re.sub(r"\W+", "_", Path(name).name)
        array = np.array(sorted(hashes), dtype=config.hash_config.np_descr)
        array.tofile(folder / f"{number:03d}_{stem}.index.hashes")


def iterate_evaluation_texts(row: dict[str, Any]) -> Iterator[str]:
    """Yield what must not be learnt of an evaluation row: the question, by itself and with each of its answers."""
    asked = " ".join(
        str(row[name]) for name in ("context", "question", "prompt", "input") if isinstance(row.get(name), str)
    )
    asked = asked or " ".join(iterate_texts(row))
    yield asked
    answers = row.get("choices") or [row.get("answer")]
    for answer in answers if isinstance(answers, list) else []:
        if isinstance(answer, str):
            yield f"{asked} {answer}"


def _make_reader(names: list[str], text_field: str | None, dropped: Any) -> Any:
    """Return a step that reads a task's share of the ranges; rows without a text go to `dropped`."""
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep

    class ReadSources(PipelineStep):
        name, type = "small-doge", "📖 - READER"

        def __init__(self) -> None:
            super().__init__()
            self.dropped = dropped

        def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
            ranges = [(source, file_range) for source in map(open_source, names) for file_range in source.ranges]
            with self.dropped as writer:
                for number, (source, file_range) in list(enumerate(ranges))[rank::world_size]:
                    for index, record in enumerate(source.read(file_range)):
                        text = "\n\n".join(iterate_texts(record.row or {}, text_field))
                        facts = {"row": record.row, "source": source.name}
                        document = Document(text, f"{number}-{index}", metadata=facts)
                        if text.strip():
                            yield document
                            continue
                        reason = f"{record.where}: {record.problem}" if record.problem else "no text"
                        facts["filter_reason"] = reason
                        writer.write(document, rank)

    return ReadSources()


def _exact_steps(read: Any, work: Path, dropped: Any, writer: Any, tasks: int) -> list[tuple[list, int]]:
    from datatrove.pipeline.dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )

    config = ExactDedupConfig(content_getter=_content, hash_config=_hashing())
    return [
        ([read(), ExactDedupSignature(str(work / "signatures"), config)], tasks),
        ([ExactFindDedups(str(work / "signatures"), str(work / "found"), config)], 1),
        ([read(), ExactDedupFilter(str(work / "found"), config, dropped), writer], tasks),
    ]


def _near_steps(read: Any, work: Path, dropped: Any, writer: Any, tasks: int) -> list[tuple[list, int]]:
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    config = MinhashConfig(hash_config=_hashing())
    return [
        ([read(), MinhashDedupSignature(str(work / "signatures"), config)], tasks),
        ([MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(work / "buckets"), str(work / "found"), config)], 1),
        ([read(), MinhashDedupFilter(str(work / "found"), dropped), writer], tasks),
    ]


def _content(document: Any) -> str:
    return document.text


def _original_row(_: Any, document: Any) -> dict[str, Any]:
    return document.metadata["row"]


def _with_reason(_: Any, document: Any) -> dict[str, Any]:
    facts = document.metadata
    return {"reason": facts.get("filter_reason", ""), "source": facts["source"], "row": facts["row"]}


def _count(output: Path, cleaning: Cleaning) -> CleaningReport:
    report = CleaningReport()
    for path in output.glob("clean-*.jsonl.gz"):
        with gzip.open(path, "rb") as file:
            report.kept += sum(1 for _ in file)
    for name in (UNUSABLE, *FILTERS):
        if name != UNUSABLE and name not in cleaning.filters:
            continue
        reasons: dict[str, int] = {}
        for path in sorted((output / "dropped" / name).glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    reason = json.loads(line)["reason"] or name
                    reasons[reason] = reasons.get(reason, 0) + 1
        report.dropped[name] = reasons
    report.rows = report.kept + sum(sum(reasons.values()) for reasons in report.dropped.values())
    return report
