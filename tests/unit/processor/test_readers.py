import gzip
import json

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from small_doge.processor import readers
from small_doge.processor.readers import embedded_ranges, split_file


ROWS = [{"text": "word " * (i % 7) + f"row {i} ü"} for i in range(40)]


@pytest.fixture(params=["jsonl", "jsonl.gz", "json", "txt", "txt.gz", "parquet", "arrow", "embedded"])
def ranges(request, tmp_path, monkeypatch):
    """The ranges of one source of each kind, small enough that there are several where a kind has ranges."""
    monkeypatch.setattr(readers, "RANGE_BYTES", 300)
    monkeypatch.setattr(readers, "RANGE_ROWS", 16)
    monkeypatch.setattr(readers, "PARAGRAPH", 30)
    kind, path = request.param, tmp_path / f"a.{request.param}"
    if kind == "embedded":
        return embedded_ranges("world", 40)
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


def test_ranges_hold_every_row_once(ranges):
    texts = [record.row["text"] for file_range in ranges for record in file_range.read()]
    if ranges[0].kind in ("embedded", "text"):
        assert len(set(texts)) == len(texts) >= 15
    else:
        assert texts == [row["text"] for row in ROWS]


def test_reading_goes_on_from_any_record(ranges):
    for file_range in ranges:
        records = list(file_range.read())
        for index, record in enumerate(records):
            rest = [r.row for r in file_range.read(record.next)]
            assert rest == [r.row for r in records[index + 1 :]], record.where


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30), size=st.integers(1, 200))
def test_ranges_of_bytes_share_lines_out_whatever_their_lengths(tmp_path, monkeypatch, lengths, size):
    monkeypatch.setattr(readers, "RANGE_BYTES", size)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n, "i": i}) + "\n" for i, n in enumerate(lengths)))
    numbers = [record.row["i"] for file_range in split_file(str(path)) for record in file_range.read()]
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


def texts_of(path):
    return [record.row["text"] for file_range in split_file(str(path)) for record in file_range.read()]


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FORMS = {
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "mark.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "array.jsonl": json.dumps(ROWS).encode(),
    "array.ndjson": b"\n \n" + json.dumps(ROWS, indent=1).encode() + b"\n\n",
    "upper.JSONL": LINES,
    "packed.JSONL.GZ": gzip.compress(LINES),
    "plain.jsonl.gz": LINES,
    "packed.jsonl": gzip.compress(LINES),
    "packed.json": gzip.compress(json.dumps(ROWS).encode()),
}


@pytest.mark.parametrize("name", FORMS)
def test_files_are_read_by_what_they_hold_rather_than_by_their_names(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    assert texts_of(tmp_path / name) == [row["text"] for row in ROWS]


def test_a_first_row_that_is_a_list_does_not_make_an_array_of_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"[1, 2]\n" + LINES)
    records = [record for file_range in split_file(str(tmp_path / "a.jsonl")) for record in file_range.read()]
    assert records[0].problem == "not a JSON object" and len(records) == len(ROWS) + 1


def test_a_mark_at_the_start_of_a_text_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfA story.")
    assert texts_of(tmp_path / "a.txt") == ["A story."]


def test_separators_inside_a_text_part_no_lines(tmp_path):
    text = "one\u2028two\u2029three\x85four\x0bfive\x0csix"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert texts_of(tmp_path / "a.jsonl") == [text]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_another_encoding_is_named_with_the_remedy(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "one"}\n'.encode(encoding))
    if encoding == "utf-16":
        with pytest.raises(ValueError, match="is UTF-16, not UTF-8; convert it: iconv -f UTF-16"):
            split_file(str(path))
    else:
        assert "is the file UTF-16?" in next(split_file(str(path))[0].read()).problem


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_half_of_a_surrogate_pair_fails_its_row_alone(tmp_path, name):
    rows = [r'{"text": "\ud83d\ude00"}', r'{"text": "\ud83d"}', r'{"deep": [{"\uDC00": 1}]}', '{"text": "b"}']
    content = ("[" + ", ".join(rows) + "]" if name == "a.json" else "\n".join(rows)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    records = [record for file_range in split_file(str(tmp_path / name)) for record in file_range.read()]
    assert [record.row is not None for record in records] == [True, False, False, True]
    assert "half of a surrogate pair ('\\ud83d')" in records[1].problem


def test_rows_that_are_nested_too_deeply_fail_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "]" * 100_000 + "\n" + '{"text": "b"}\n')
    records = [record for file_range in split_file(str(tmp_path / "a.jsonl")) for record in file_range.read()]
    assert records[-1].row == {"text": "b"} and "JSON" in records[0].problem


def test_a_torn_arrow_file_is_named(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    path = next((tmp_path / "saved").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="can't be read|not a readable arrow file"):
        [list(file_range.read()) for file_range in split_file(str(path))]
