"""Findings of `eval leaks` as tables."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..utils.markdown import write_table
from .leaks import NEARLY_WHOLE, Findings
from .overlaps import ENOUGH_WORDS, LEAST_WORDS, MOST_ITEMS, NEAR_WORDS, RUN


TASK_HEAD = ("task", "items", "looked for", "found", "nearly whole", "share found")
FILE_HEAD = ("file", "rows", "words", "items found", "of")
NOTE = (
    f"An item is found where a text has {RUN} words of its question and right answer in a row; of a question of fewer words, "
    f"all of it, and of fewer than {ENOUGH_WORDS} also the answer, at most {NEAR_WORDS} words away. Case and punctuation do not count. Nearly whole: "
    f"{NEARLY_WHOLE:.0%} of these runs of words. Not looked for: items of fewer than {LEAST_WORDS} words, and runs that more "
    f"than {MOST_ITEMS} items of a task share."
)


def list_task_cells(findings: Findings) -> list[list[str]]:
    """Return a row for each task."""
    return [
        [
            task,
            f"{row['items']:,}",
            f"{row['checked']:,}",
            f"{row['found']:,}",
            f"{row['whole']:,}",
            f"{row['found'] / row['checked']:.1%}" if row["checked"] else "-",
        ]
        for task, row in findings.count_by_task().items()
    ]


def list_file_cells(findings: Findings) -> list[list[str]]:
    """Return a row for each file, those with the most items first."""
    found = sorted(findings.count_by_file().items(), key=lambda entry: -entry[1]["items"])
    return [
        [
            Path(name).name,
            f"{row['rows']:,}",
            f"{row['words']:,}",
            f"{row['items']:,}",
            ", ".join(f"{task} {count:,}" for task, count in row["tasks"].items()),
        ]
        for name, row in found
    ]


def list_facts(findings: Findings) -> list[str]:
    """Return what was left out."""
    facts = [NOTE]
    unread = sum(found.unread for found in findings.files.values())
    if unread:
        facts.append(f"{unread:,} rows could not be read and were left out.")
    if findings.num_common:
        facts.append(f"{findings.num_common:,} runs of words are the wording of their tasks and were not looked for.")
    return facts


def describe_findings(findings: Findings, data: Sequence[str]) -> dict[str, Any]:
    """Return the content of `leaks.json`."""
    return {
        "data": list(data),
        "found": findings.num_found,
        "tasks": findings.count_by_task(),
        "files": findings.count_by_file(),
        "items": [
            {"task": item.task, "id": item.id, "share": round(item.share, 4)} for item in findings.items if item.found
        ],
        "examples": {task: [asdict(example) for example in found] for task, found in findings.examples.items()},
    }


def write_markdown(findings: Findings, data: Sequence[str]) -> str:
    """Write tables and examples in Markdown."""
    lines = [f"# Evaluation items in {', '.join(data)}", "", write_table(TASK_HEAD, list_task_cells(findings)), ""]
    lines += [write_table(FILE_HEAD, list_file_cells(findings)), ""]
    for task, examples in findings.examples.items():
        lines += [f"## {task}", ""]
        lines += [f"- `{e.id}`: {' '.join(e.question.split())}\n  - {e.where}: {e.excerpt}" for e in examples] + [""]
    return "\n".join([*lines, *(f"- {fact}" for fact in list_facts(findings)), ""])
