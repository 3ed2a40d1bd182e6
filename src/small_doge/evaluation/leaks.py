"""Evaluation items in training data: which, how much of each, and in which files."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ..processor.readers import FileRange
from ..processor.sources import Source, open_source
from ..utils.errors import UserError
from ..utils.model_folder import TOKENIZER_FILES, load_tokenizer
from .overlaps import NEAR_WORDS, RUN, Item, OverlapIndex, split_words


NEARLY_WHOLE = 0.8  # share of an item's runs
CONTEXT_WORDS = 8  # shown before and after what was found
# Fields that hold what is asked, in the order in which they are read.
QUESTION_FIELDS = ("context", "question", "prompt", "problem", "Body", "Question", "input")
_BLANK = re.compile(r"_+")
ANSWER_FIELDS = ("answer", "target", "final")


@dataclass(frozen=True)
class Example:
    """An item found in a text.

    Attributes:
        task: name of the task.
        id: name of the item.
        question: of the item.
        where: file and place.
        excerpt: words of the text, what both have between « and ».
    """

    task: str
    id: str
    question: str
    where: str
    excerpt: str


@dataclass
class FileFindings:
    """What was found in a file.

    Attributes:
        rows: rows that were read.
        words: words in them.
        unread: rows that could not be read.
        items: numbers of the items found.
    """

    rows: int = 0
    words: int = 0
    unread: int = 0
    items: set[int] = field(default_factory=set)


@dataclass
class Findings:
    """What was found in all files.

    Attributes:
        items: all items, with what was found of each.
        files: by name.
        examples: by task.
        num_common: runs of words that are a task's wording, not looked for.
    """

    items: Sequence[Item]
    num_common: int
    files: dict[str, FileFindings] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)

    @property
    def num_found(self) -> int:
        """Count the items that were found, at least in part."""
        return sum(bool(item.found) for item in self.items)

    def count_by_task(self) -> dict[str, dict[str, int]]:
        """Count items by task: all, those looked for, those found, and those found nearly whole."""
        counts: dict[str, Counter[str]] = {}
        for item in self.items:
            row = counts.setdefault(item.task, Counter(items=0, checked=0, found=0, whole=0))
            row["items"] += 1
            row["checked"] += bool(item.runs)
            row["found"] += bool(item.found)
            row["whole"] += item.share >= NEARLY_WHOLE
        return {task: dict(row) for task, row in counts.items()}

    def count_by_file(self) -> dict[str, dict[str, Any]]:
        """Count rows, words and found items by file, and these by task."""
        return {
            name: {
                "rows": found.rows,
                "words": found.words,
                "unread": found.unread,
                "items": len(found.items),
                "tasks": dict(Counter(self.items[number].task for number in sorted(found.items))),
            }
            for name, found in self.files.items()
        }


def read_item(task: str, row: dict[str, Any]) -> Item:
    """Read what is asked and the right answer of an evaluation row."""
    asked = " ".join(row[name] for name in _find_question_fields(row))
    answer = next((row[name] for name in ANSWER_FIELDS if isinstance(row.get(name), (str, int))), "")
    choices = row.get("choices")
    if choices and isinstance(answer, int):
        answer = choices[answer]
    answer = str(answer) if isinstance(answer, str) else ""
    if choices and _BLANK.search(asked):  # the choice belongs into the sentence
        asked, answer = _BLANK.sub(lambda _: answer, asked, count=1), ""
    return Item(task, str(row.get("id", row.get("key", ""))), asked, split_words(asked), split_words(answer))


def _find_question_fields(row: dict[str, Any]) -> list[str]:
    """Find the fields with what is asked; one that repeats another is left out."""
    names = [name for name in QUESTION_FIELDS if isinstance(row.get(name), str) and row[name].strip()]
    return [
        n
        for n in names
        if not any(n != other and row[n] in row[other] and names.index(n) > names.index(other) for other in names)
    ]


def find_leaks(
    items: Sequence[Item],
    names: Sequence[str],
    tokenizer: str | None = None,
    num_examples: int = 3,
    report: Callable[[int], None] = lambda size: None,
) -> Findings:
    """Look for evaluation items in training data, which are read row by row.

    Args:
        items: from `read_item`.
        names: files, folders, prepared data or data sets.
        tokenizer: folder of the tokenizer of prepared rows; the one beside them if not set.
        num_examples: kept of each task.
        report: told how many characters more were read.

    Returns:
        What was found.

    Raises:
        UserError: no items, or data that can't be read.
    """
    index = OverlapIndex(items)
    if not index.tables:
        raise UserError("the tasks have no item with enough words to be looked for")
    findings = Findings(items, index.num_common)
    for source in map(open_all, names):
        for file_range in source.ranges:
            found = findings.files.setdefault(file_range.path, FileFindings())
            for words, where in _read_words(source, file_range, tokenizer, found, report):
                _note_hits(findings, index, words, where, found, num_examples)
    return findings


def open_all(name: str) -> Source:
    """Open a source with all of its splits."""
    return open_source(name, all_splits=True)


def _note_hits(
    findings: Findings, index: OverlapIndex, words: list[str], where: str, found: FileFindings, num_examples: int
) -> None:
    """Note the items that a text has."""
    for hit in index.find(words):
        item = findings.items[hit.item]
        examples = findings.examples.setdefault(item.task, [])
        if not item.found and len(examples) < num_examples:
            examples.append(Example(item.task, item.id, item.text, where, _show(words, hit.place, item.run_length)))
        item.found.add(hit.run)
        found.items.add(hit.item)


def _show(words: list[str], place: int, length: int) -> str:
    before = words[max(0, place - CONTEXT_WORDS) : place]
    end = place + length
    return " ".join([*before, "«" + " ".join(words[place:end]) + "»", *words[end : end + CONTEXT_WORDS]])


def _read_words(
    source: Source,
    file_range: FileRange,
    tokenizer: str | None,
    found: FileFindings,
    report: Callable[[int], None],
) -> Iterator[tuple[list[str], str]]:
    """Yield the words of each row of a range, and where it stands."""
    before: list[str] = []  # of a plain text, whose paragraphs are read a few at a time
    for record in source.read(file_range):
        if record.row is None:
            found.unread += 1
            continue
        found.rows += 1
        for text in _list_texts(record.row, file_range.path, tokenizer):
            words = split_words(text)
            found.words += len(words)
            report(len(text))
            yield before + words, record.where
            before = words[-(RUN + NEAR_WORDS) :] if file_range.kind == "text" else []


def _list_texts(row: dict[str, Any], path: str, tokenizer: str | None) -> list[str]:
    """List the texts of a row: all that it says, whatever its fields; of tokens, each document."""
    if "input_ids" in row:
        decode = _open_tokenizer(path, tokenizer).decode
        edges = accumulate(row.get("seq_lengths") or [len(row["input_ids"])], initial=0)
        return [decode(row["input_ids"][a:b], skip_special_tokens=True) for a, b in pairwise(edges)]
    parts: list[str] = []
    _collect(row, parts)
    return ["\n".join(parts)]


def _collect(value: Any, parts: list[str]) -> None:
    """Collect all strings in a row."""
    if isinstance(value, str):
        parts.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, parts)
    elif isinstance(value, list):
        for item in value:
            _collect(item, parts)


@cache
def _open_tokenizer(path: str, name: str | None) -> Any:
    """Open the tokenizer of prepared rows.

    Raises:
        UserError: there is none.
    """
    folders = [folder / sub for folder in list(Path(path).absolute().parents)[:4] for sub in ("tokenizer", "")]
    beside = next((str(f) for f in folders if any((f / file).is_file() for file in TOKENIZER_FILES)), None)
    if name is None and beside is None:
        raise UserError(f"{path} holds tokens, and no tokenizer lies beside it; name it with --tokenizer")
    return load_tokenizer(name or beside, "--tokenizer")
