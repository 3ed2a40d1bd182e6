"""What happened to the rows of a source, and which of them failed."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.logging import get_logger
from .data_config import DataConfig


logger = get_logger(__name__)

FAILED = "failed_rows.jsonl"
# Of fewer rows, a share says little: a warning does.
JUDGED_ROWS = 100


@dataclass
class Report:
    """What happened to the rows of a source.

    Args:
        rows: read.
        documents: made of them.
        packed_rows: made of the documents.
        tokens: in them.
        learnt: tokens with a label, where only some have one.
        cut: documents that lost what stood behind `max_length`.
        held_out: documents left out because they stand in the test split.
        skipped: rows that are of another format.
        unlearnt: packed rows left out because no token of theirs is learnt.
        failed: rows that can't be used, and why.
    """

    rows: int = 0
    documents: int = 0
    packed_rows: int = 0
    tokens: int = 0
    learnt: int = 0
    cut: int = 0
    held_out: int = 0
    unlearnt: int = 0
    skipped: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Sum up."""
        for name in ("rows", "documents", "packed_rows", "tokens", "learnt", "cut", "held_out", "unlearnt", "skipped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed


def describe_failures(report: Report, shown: int = 3) -> str:
    """Describe the first few failed rows with their reasons."""
    first = "; ".join(f"{row['where']}: {row['reason']}" for row in report.failed[:shown])
    return first + (f"; and {len(report.failed) - shown} more" if len(report.failed) > shown else "")


def check_failures(
    name: str,
    report: Report,
    config: DataConfig,
    whole: bool = True,
    failures: Path | None = None,
) -> None:
    """Refuse a source that lost too many rows.

    Args:
        name: of the source.
        report: of it.
        config: how many rows it may lose, and which share of them; of fewer than 100 rows, any share.
        whole: whether all of it was read. Of a part, half may be lost, as bad rows may lie together.
        failures: the side file with all rows that can't be used.

    Raises:
        ValueError: it lost more than either limit allows, with the first reasons.
    """
    lost = len(report.failed)
    limits = [f"max_bad_rows={config.max_bad_rows}"] if lost > config.max_bad_rows else []
    allowed = config.max_bad_share if whole else max(config.max_bad_share, 0.5)
    if report.rows >= JUDGED_ROWS and lost > allowed * report.rows:
        limits.append(f"max_bad_share={config.max_bad_share:g}")
    if limits:
        place = f" All are in {failures}." if failures else ""
        raise UserError(
            f"data set {name!r}: {lost} of {report.rows} rows can't be used, more than {' and '.join(limits)} "
            f"allow{'' if len(limits) > 1 else 's'}: {describe_failures(report)}.{place} Mend the rows, or raise the limit"
        )


def tell_losses(
    name: str, report: Report, max_length: int, failures: Path | None = None, so_far: bool = False
) -> None:
    """Say what a source lost: a warning, unless that is only what stands in the test split. See `describe_losses`."""
    losses = describe_losses(report, max_length, failures)
    if losses:
        level = logging.WARNING if report.failed or report.skipped or report.cut or report.unlearnt else logging.INFO
        logger.log(level, "data set %r%s: %s", name, ", so far" if so_far else "", losses)


def describe_losses(report: Report, max_length: int, failures: Path | None = None) -> str:
    """Describe what a source lost, with the counts; empty if it lost nothing.

    Args:
        report: of the source.
        max_length: at which documents are cut.
        failures: the side file with all rows that can't be used.
    """
    said = []
    if report.failed:
        place = f" (all are in {failures})" if failures else ""
        said.append(f"skipped {len(report.failed)} of {report.rows} rows{place}: {describe_failures(report)}")
    if report.skipped:
        said.append(f"left out {report.skipped} of {report.rows} rows, which are of another format")
    if report.cut:
        said.append(f"cut {report.cut} of {report.documents} documents at max_length={max_length}")
    if report.unlearnt:
        said.append(f"left out {report.unlearnt} packed rows none of whose tokens is learnt")
    if report.held_out:
        said.append(f"left out {report.held_out} documents that stand in the test split")
    return "; ".join(said)


def keep_failures(path: Path, reports: list[Report]) -> None:
    """Write the side file: a line for each row that could not be used."""
    # ASCII: names of fields may hold half a character.
    lines = [json.dumps(row) + "\n" for report in reports for row in report.failed]
    if lines:
        write_text(path, "".join(lines))
