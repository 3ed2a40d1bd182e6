import gzip
import json

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from small_doge.processor import readers
from small_doge.processor.readers import embedded_parts, split_file


ROWS = [{"text": "word " * (i % 7) + f"row {i} ü"} for i in range(40)]


@pytest.fixture(params=["jsonl", "jsonl.gz", "json", "txt", "txt.gz", "parquet", "arrow", "embedded"])
def parts(request, tmp_path, monkeypatch):
    """The parts of one source of each kind, small enough that there are several where a kind has parts."""
    monkeypatch.setattr(readers, "PART_BYTES", 300)
    monkeypatch.setattr(readers, "PART_ROWS", 16)
    monkeypatch.setattr(readers, "PARAGRAPH", 30)
    kind, path = request.param, tmp_path / f"a.{request.param}"
    if kind == "embedded":
        return embedded_parts("world", 40)
    if kind == "parquet":
        Dataset.from_list(ROWS).to_parquet(path, batch_size=8)
    elif kind == "arrow":
        Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
        path = next((tmp_path / "saved").glob("*.arrow"))
    else:
        texts = {
            "json": json.dumps(ROWS),
            "txt": "\n\n".join(row["text"] for row in ROWS),
        }
        text = texts.get(kind.removesuffix(".gz"), "".join(json.dumps(row) + "\n" for row in ROWS))
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    return split_file(str(path))


def test_parts_hold_every_row_once(parts):
    texts = [record.row["text"] for part in parts for record in part.read()]
    if parts[0].kind in ("embedded", "text"):
        assert len(set(texts)) == len(texts) >= 15
    else:
        assert texts == [row["text"] for row in ROWS]


def test_reading_goes_on_from_any_record(parts):
    for part in parts:
        records = list(part.read())
        for index, record in enumerate(records):
            rest = [r.row for r in part.read(record.next)]
            assert rest == [r.row for r in records[index + 1 :]], record.where


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30), size=st.integers(1, 200))
def test_ranges_of_bytes_share_lines_out_whatever_their_lengths(tmp_path, monkeypatch, lengths, size):
    monkeypatch.setattr(readers, "PART_BYTES", size)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n, "i": i}) + "\n" for i, n in enumerate(lengths)))
    numbers = [record.row["i"] for part in split_file(str(path)) for record in part.read()]
    assert numbers == list(range(len(lengths)))


def test_a_torn_file_is_an_error_that_says_so(tmp_path):
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match=r"a.jsonl.gz is damaged after .*fetch it again"):
        list(split_file(str(tmp_path / "a.jsonl.gz"))[0].read())
    Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a.parquet is not a readable parquet file.*fetch it again"):
        split_file(str(tmp_path / "a.parquet"))


def test_an_unknown_kind_of_file_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(ValueError, match=r"a.csv: unknown kind of file; expected .jsonl"):
        split_file(str(tmp_path / "a.csv"))
