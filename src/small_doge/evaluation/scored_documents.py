"""Texts and conversations as tokens of which some are scored, and the windows in which a model reads them."""

import codecs
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from transformers import PreTrainedTokenizerBase

from ..processor.chat_encoding import encode_document
from ..processor.data_config import DataConfig
from ..processor.encoder import BATCH_ROWS, IGNORED, Encoder, Example
from ..processor.prepared import find_other_tokenizer
from ..processor.readers import FileRange
from ..processor.sources import open_source
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message
from .choices import ROW_FORMATS


NO_LIMIT = 1 << 40  # tokens of a document
HOW_TO_PREPARE = "make rows of tokens with small-doge data prepare, or name the raw data"


@dataclass(frozen=True)
class Document:
    """A text or conversation.

    Attributes:
        tokens: int32 [n].
        scored: bool [n]; False for the first token, which nothing predicts, and for what the assistant does not say.
        source: the file that it stands in.
    """

    tokens: np.ndarray
    scored: np.ndarray
    source: str


@dataclass(frozen=True)
class Window:
    """What a model reads at once.

    Attributes:
        ids: int32 [n + 1]: the first n are read, the last n predicted.
        scored: bool [n], the predicted tokens to count; the others were counted in an earlier window, or are not scored.
        document: number of the document.
    """

    ids: np.ndarray
    scored: np.ndarray
    document: int


class DocumentReader:
    """Reads files as training does: rows of texts or conversations, plain texts, prepared rows.

    Args:
        tokenizer: of the model.
        row_format: `text` or `conversation`; `auto` takes each row as what it holds.
        text_field: field that holds the text of a row; `text` if not set.

    Attributes:
        failed: reasons why rows could not be used, and how often each occurred.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, row_format: str = "auto", text_field: str | None = None
    ) -> None:
        if row_format not in ROW_FORMATS:
            raise UserError(unknown_name_message("row format", row_format, ROW_FORMATS))
        self.tokenizer = tokenizer
        self.failed: Counter[str] = Counter()
        how: dict[str, Any] = {"max_length": NO_LIMIT, "dataset_text_field": text_field}
        try:
            chosen = "conversation" if row_format == "auto" else row_format
            self.encoder = Encoder(tokenizer, DataConfig(row_format=chosen, **how))
        except UserError:
            if row_format == "conversation":
                raise
            self.encoder = Encoder(tokenizer, DataConfig(row_format="text", **how))  # there is no chat template

    def read(self, name: str) -> Iterator[Document]:
        """Yield the documents of a file, folder or data set.

        Raises:
            UserError: there is none of this name, it can't be read, or it holds tokens that are not the model's.
        """
        source = open_source(name, all_splits=True)
        for file_range in source.ranges:
            if file_range.kind == "text":
                yield self._read_text(file_range)
                continue
            rows: list[dict[str, Any]] = []
            are_tokens = False
            for record in source.read(file_range):
                if record.row is None:
                    self.failed[record.problem] += 1
                elif "input_ids" in record.row:
                    if not are_tokens:
                        self._check_tokenizer(file_range.path)
                        are_tokens = True
                    yield from self._split_prepared(record.row, record.where, file_range.path)
                else:
                    rows.append(record.row)
                if len(rows) == BATCH_ROWS:
                    yield from self._encode(rows, file_range.path)
                    rows = []
            yield from self._encode(rows, file_range.path)

    def _read_text(self, file_range: FileRange) -> Document:
        """Read a file of plain text whole, as one document."""
        path = file_range.path
        try:
            with fsspec.open(path, "rb", compression="gzip" if file_range.packed else None) as file:
                text = file.read().removeprefix(codecs.BOM_UTF8).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: invalid UTF-8 at byte {error.start}; convert the file to UTF-8") from error
        except (OSError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} can't be read ({error}); fetch it again") from error
        return _make_document(encode_document(self.tokenizer, text), None, path)

    def _encode(self, rows: list[dict[str, Any]], path: str) -> Iterator[Document]:
        for example in self.encoder.encode(rows):
            if isinstance(example, Example):
                yield _make_document(example.tokens, example.labels, path)
            else:
                self.failed[example] += 1

    def _check_tokenizer(self, path: str) -> None:
        """Refuse a file of tokens that another tokenizer made.

        Raises:
            UserError: it did.
        """
        own = find_other_tokenizer(Path(path).parent, self.tokenizer)
        if own is not None:
            raise UserError(
                f"the rows of {path} were made with another tokenizer ({own}) than the model's: prepare them with that of "
                "the model, or name the raw data"
            )

    def _split_prepared(self, row: dict[str, Any], where: str, path: str) -> Iterator[Document]:
        """Yield the documents of a prepared row; padding is none.

        Raises:
            UserError: it is no prepared row, or holds a token that the tokenizer does not have.
        """
        if row.get("seq_lengths") is None:
            raise UserError(f"{where}: the row has input_ids and no seq_lengths; {HOW_TO_PREPARE}")
        try:
            tokens, lengths = _read_tokens(row["input_ids"]), _read_tokens(row["seq_lengths"])
            labels = _read_tokens(row["labels"]) if row.get("labels") is not None else None
            if lengths.sum() > len(tokens) or (labels is not None and len(labels) != len(tokens)):
                raise ValueError("its lengths are those of another row")
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: this is no prepared row ({error}); {HOW_TO_PREPARE}") from error
        size = len(self.tokenizer)
        outside = tokens[(tokens < 0) | (tokens >= size)]
        if len(outside):
            raise UserError(
                f"{where}: the row holds token {outside[0]}, and the tokenizer has 0 to {size - 1}: it was made with another "
                f"one; {HOW_TO_PREPARE}"
            )
        tokens = tokens.astype(np.int32)
        for start, stop in pairwise(accumulate(lengths, initial=0)):
            yield _make_document(tokens[start:stop], None if labels is None else labels[start:stop], path)


def _read_tokens(values: Any) -> np.ndarray:
    """Read whole numbers as int64 [n].

    Raises:
        ValueError: they are something else.
    """
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"{str(values)[:40]} are not whole numbers")
    return found.astype(np.int64)


def _make_document(tokens: np.ndarray, labels: np.ndarray | None, path: str) -> Document:
    scored = np.ones(len(tokens), dtype=bool) if labels is None else labels != IGNORED
    scored[:1] = False
    return Document(tokens, scored, path)


def join_documents(documents: Sequence[Document]) -> Document:
    """Join documents as packed training without borders does: one after the other, each with its begin and end tokens."""
    return Document(
        np.concatenate([document.tokens for document in documents]),
        np.concatenate([document.scored for document in documents]),
        documents[0].source,
    )


def cut_windows(document: Document, number: int, context: int, stride: int, begin: int | None) -> Iterator[Window]:
    """Cut a document into windows in which each of its tokens is scored once.

    Args:
        document: to cut.
        number: of the document.
        context: tokens that the model reads at once, at most.
        stride: tokens that each window but the first adds; the smaller, the more of the text stands before each.
        begin: token before every window that does not start with the document; if None, the token that stands there.
    """
    tokens, scored = document.tokens, document.scored
    end = min(len(tokens), context + 1)
    yield Window(tokens[:end], scored[1:end], number)
    while end < len(tokens):
        done, end = end, min(len(tokens), end + stride)
        start = max(1, end - context)
        lead = tokens[start - 1 : start] if begin is None else np.array([begin], dtype=np.int32)
        counted = scored[start:end].copy()
        counted[: done - start] = False
        yield Window(np.concatenate([lead, tokens[start:end]]), counted, number)


def take_tokens(documents: Iterator[Document], limit: int | None) -> Iterator[Document]:
    """Yield documents up to a number of scored tokens; the last one is cut."""
    left = NO_LIMIT if limit is None else limit
    for document in documents:
        count = int(document.scored.sum())
        if count >= left:
            end = int(np.flatnonzero(document.scored)[left - 1]) + 1
            yield Document(document.tokens[:end], document.scored[:end], document.source)
            return
        left -= count
        if count:
            yield document
