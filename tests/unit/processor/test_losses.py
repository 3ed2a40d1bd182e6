"""Rows that are lost are counted and told, and too many of them are an error: prepared, streamed, and for tokenizers."""

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.chats import turns
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.processor import ft_datasets_process, mix_reader, pt_datasets_process, readers
from small_doge.processor.data_config import DataConfig
from small_doge.processor.report import Report, describe_losses
from small_doge.processor.tokenizer import read_texts


@pytest.fixture
def write(tmp_path):
    def call(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return call


@pytest.fixture
def mix(tiny_tokenizer, tmp_path):
    def call(shares, row_format="conversation", **settings):
        settings = {"processing_class": tiny_tokenizer, "max_length": 64, **settings}
        settings.setdefault("cache_dir", str(tmp_path / "cache"))
        if row_format == "text":
            return pt_datasets_process.mix_datasets_by_ratio(shares, **settings)
        return ft_datasets_process.mix_datasets_by_ratio(shares, row_format=row_format, **settings)

    return call


GOOD, BAD = {"messages": turns("a", "b")}, {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_source_may_lose_a_share_of_its_rows_and_no_more(mix, write, streaming):
    path = write("mostly.jsonl", [*[GOOD] * 60, *[BAD] * 440])
    with pytest.raises(ValueError, match=r"440 of 500 rows can't be used, more than max_bad_share=0.1 allows: mostly"):
        list(mix([{path: 1.0}], streaming=streaming)["train"])
    assert len(list(mix([{path: 1.0}], streaming=streaming, max_bad_share=0.9)["train"])) == 60
    path = write("some.jsonl", [*[GOOD] * 90, *[BAD] * 10])
    assert len(list(mix([{path: 1.0}], streaming=streaming)["train"])) == 90
    with pytest.raises(ValueError, match="max_bad_rows=5 and max_bad_share=0.05 allow:"):
        list(mix([{path: 1.0}], streaming=streaming, max_bad_rows=5, max_bad_share=0.05)["train"])


def test_bad_rows_that_lie_together_are_judged_by_the_whole_source(mix, write, monkeypatch):
    monkeypatch.setattr(mix_reader, "BLOCK_ROWS", 100)
    path = write("together.jsonl", [*[BAD] * 40, *[GOOD] * 960])
    assert len(mix([{path: 1.0}])["train"]) == 960


@pytest.mark.parametrize("settings", [{"max_bad_share": 1.5}, {"max_bad_share": -0.1}, {"max_bad_rows": -1}])
def test_limits_that_mean_nothing_are_named(mix, write, settings):
    with pytest.raises(ValueError, match="max_bad_share=.* must lie in"):
        mix([{write("a.jsonl", [GOOD]): 1.0}], **settings)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_cut_skipped_or_held_out_is_counted_and_told(mix, write, messages, streaming):
    long = {"messages": turns("a", "word " * 100)}
    list(mix([{write("cut.jsonl", [GOOD, long]): 1.0}], streaming=streaming)["train"])
    assert "cut 1 of 2 documents at max_length=64" in messages.text
    if not streaming:
        rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, GOOD]
        mix([{write("prefs.jsonl", rows): 1.0}], row_format="preference")
        assert "left out 1 of 2 rows, which are of another format" in messages.text
    texts = [{"text": f"Row {i % 3}"} for i in range(12)]
    path = write("twice.jsonl", texts)
    list(mix([{path: 1.0}], row_format="text", packing=False, test_size=1, streaming=streaming)["train"])
    assert streaming or "left out 4 documents that stand in the test split" in messages.text
    path = write("long.jsonl", [{"text": "word " * 100}])
    list(mix([{path: 1.0}], row_format="text", packing=False, streaming=streaming)["train"])
    assert "cut 1 of 1 documents at max_length=64" in messages.text
    told = len(messages.lines)
    list(mix([{path: 1.0}], row_format="text", streaming=streaming)["train"])  # goes on in the next row
    assert not any("cut" in line for line in messages.lines[told:])


def test_one_half_preference_at_the_start_does_not_hide_a_set(mix, write):
    half = {"prompt": "a", "chosen": "b", "rejected": None}
    path = write("prefs.jsonl", [half, *[{"prompt": f"a{i}", "chosen": "b", "rejected": "c"} for i in range(5)]])
    assert len(mix([{path: 1.0}], row_format="preference")["train"]) == 5
    with pytest.raises(ValueError, match=r"1 of 6 rows can't be used.*rejected is null"):
        mix([{path: 1.0}], row_format="preference", max_bad_rows=0)


def test_too_many_failed_rows_of_a_large_source_are_listed_where_the_error_says(mix, write, tmp_path, monkeypatch):
    monkeypatch.setattr(mix_reader, "BLOCK_ROWS", 50)
    monkeypatch.setattr(mix_reader, "RANGE_BYTES", 1000)
    monkeypatch.setattr(readers, "RANGE_BYTES", 1000)
    path = write("many.jsonl", [*[GOOD] * 160, *[BAD] * 40])
    with pytest.raises(ValueError, match=r"40 of 200 rows .* All are in (\S+)\. Mend") as error:
        mix([{path: 1.0}], dataset_num_proc=1)
    (kept,) = (tmp_path / "cache").glob("*/failed_rows.jsonl")
    assert f"All are in {kept}." in str(error.value) and len(kept.read_text().splitlines()) == 40


def test_a_set_whose_rows_are_all_too_long_is_an_error_with_the_reason(mix, write):
    path = write("long.jsonl", [{"prompt": "word " * 100, "chosen": "b", "rejected": "c"}] * 3)
    with pytest.raises(ValueError, match="no usable row.*its prompt has .* max_length=64 leaves no room"):
        mix([{path: 1.0}], row_format="preference")


def test_the_path_of_failed_rows_that_is_told_stays(tmp_path, tiny_tokenizer, write, messages):
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    path = write("chats.jsonl", [GOOD, {"messages": turns("a", "c")}, BAD])
    words = ["data", "prepare", "--stage", "sft", "--data", path, "--tokenizer", str(tmp_path / "tok")]
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out"), "--num-proc", "1"])
    assert done.exit_code == 0, done.output
    (kept,) = (tmp_path / "out").glob("failed_rows.jsonl")
    assert f"all are in {kept}" in messages.text and ".work" not in messages.text


def test_a_tokenizer_is_told_what_could_not_be_read(write, messages):
    path = write("texts.jsonl", [{"text": "fine"}, {"text": None}, {"text": "a\ud800"}, GOOD, {"other": 1}])
    assert list(read_texts([path])) == ["fine", "a", "b"]
    assert "skipped 3 of 5 rows: texts.jsonl byte 17: text is null" in messages.text
    with pytest.raises(ValueError, match="max_bad_rows=2 allows"):
        list(read_texts([path], DataConfig(max_bad_rows=2)))
    with pytest.raises(ValueError, match="has no text: .*no field 'body'"):
        list(read_texts([path], DataConfig(dataset_text_field="body")))
    many = write("many.jsonl", [*[{"text": "fine"}] * 80, *[{"text": 3}] * 20])
    with pytest.raises(ValueError, match="20 of 100 rows can't be used, more than max_bad_share=0.1 allows"):
        list(read_texts([many]))


def test_nothing_lost_is_nothing_said():
    assert describe_losses(Report(rows=3, documents=3), 64) == ""


def test_rows_that_parquet_filled_up_with_nulls_are_learnt_as_they_were(mix, tmp_path, tiny_tokenizer):
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    other = {"function": {"name": "sub", "arguments": {"b": {"c": "x"}}}}
    rows = [
        {"messages": [*turns("1?"), {"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [*turns("2?"), {"role": "assistant", "content": "", "tool_calls": [other]}]},
        {"conversations": [{"from": "human", "value": "3?"}, {"from": "gpt", "value": "Yes"}], "messages": []},
        {"question": "4?", "answer": Decimal("12.50")},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=merge_schemas(rows)), tmp_path / "rows.parquet")
    learnt = mix([{str(tmp_path / "rows.parquet"): 1.0}])["train"]
    texts = {tiny_tokenizer.decode([t for t in row["labels"] if t != -100]) for row in learnt}
    calls = ('{"name": "add", "arguments": {"a": 1}}', '{"name": "sub", "arguments": {"b": {"c": "x"}}}')
    assert texts == {f"{text}<|eot_id|>" for text in (*calls, "Yes", "12.50")}


def merge_schemas(rows):
    """One schema in which every row has every field."""
    tables = [pa.Table.from_pylist([row]).schema for row in rows]
    return pa.unify_schemas(tables, promote_options="permissive")
