"""What happened to the rows of a source, and which of them failed."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..utils.files import write_text


FAILED = "failed_rows.jsonl"


@dataclass
class Report:
    """What happened to the rows of a source."""

    rows: int = 0
    documents: int = 0
    packed_rows: int = 0
    tokens: int = 0
    learnt: int = 0
    cut: int = 0
    held_out: int = 0
    skipped: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Sum up."""
        for name in ("rows", "documents", "packed_rows", "tokens", "learnt", "cut", "held_out", "skipped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed


def describe_failures(report: Report, shown: int = 3) -> str:
    """The first few failed rows and their reasons."""
    first = "; ".join(f"{row['where']}: {row['reason']}" for row in report.failed[:shown])
    return first + (f"; and {len(report.failed) - shown} more" if len(report.failed) > shown else "")


def keep_failures(path: Path, reports: list[Report]) -> None:
    """The side file: a line for each row that could not be used."""
    lines = [json.dumps(row) + "\n" for report in reports for row in report.failed]
    if lines:
        write_text(path, "".join(lines))
