"""Texts and a tokenizer for studies at their smallest size."""

import json

import pytest
from benchmarks.studies import token_rows

from small_doge.processor.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def written_texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        {"text": f"The dog number {n} ran to house {n * 7 % 13} and slept there for {n % 5} days."} for n in range(99)
    ]
    data = folder / "texts.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    train_tokenizer([row["text"] for row in rows], 300).save_pretrained(folder / "tokenizer")
    return str(data), str(folder / "tokenizer")


@pytest.fixture
def texts(written_texts, tmp_path, monkeypatch):
    """A file of texts and a tokenizer trained on it; rows of tokens are kept with the test."""
    monkeypatch.setattr(token_rows, "KEPT", tmp_path / "tokens")
    return written_texts
