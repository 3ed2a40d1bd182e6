import gzip
import json
from copy import deepcopy

import pytest
from datasets import Dataset, load_from_disk

from small_doge.processor import mix_datasets_by_radio, mix_datasets_by_ratio
from small_doge.processor.mix_reader import share_out


@pytest.fixture
def mix(tiny_tokenizer, tmp_path):
    def call(datasets_and_ratios, **settings):
        settings = {
            "processing_class": tiny_tokenizer,
            "max_length": 64,
            "cache_dir": str(tmp_path / "cache"),
            **settings,
        }
        return mix_datasets_by_ratio(datasets_and_ratios, **settings)

    return call


def write_lines(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def texts(rows, tokenizer):
    out = []
    for ids, lengths in zip(rows["input_ids"], rows["seq_lengths"], strict=True):
        start = 0
        for n in lengths:
            out.append(tokenizer.decode(ids[start : start + n], skip_special_tokens=True))
            start += n
    return out


SMALL = [
    {"embedded:world:200": 0.7},
    {"embedded:textbook:60": 0.2},
    {"embedded:python:30": 0.05},
    {"embedded:arithmetic:30": 0.05},
]


def test_the_guides_call_gives_rows_of_whole_documents(mix, tiny_tokenizer):
    given = deepcopy(SMALL)
    rows = mix(given, total_sample_size=100, test_size=10)
    assert given == SMALL
    assert {k: len(v) for k, v in rows.items()} == {"train": 100, "test": 10}
    begin, end = tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id
    whole = 0
    for ids, lengths in zip(rows["train"]["input_ids"], rows["train"]["seq_lengths"], strict=True):
        assert sum(lengths) == len(ids) <= 64
        whole += ids[0] == begin and ids[lengths[0] - 1] == end
    assert whole > 5


def test_the_guides_spelling_is_an_alias(tiny_tokenizer, tmp_path):
    settings = {"processing_class": tiny_tokenizer, "max_length": 64, "cache_dir": str(tmp_path)}
    one = [{"embedded:world:50": 1.0}]
    assert (
        mix_datasets_by_radio(datasets_and_ratios=one, **settings)["train"].to_dict()
        == mix_datasets_by_ratio(one, **settings)["train"].to_dict()
    )


def test_train_and_test_share_no_row(mix):
    rows = mix(SMALL, total_sample_size=400, test_size=20)
    seen = {tuple(ids) for ids in rows["train"]["input_ids"]}
    assert not seen & {tuple(ids) for ids in rows["test"]["input_ids"]}


def test_same_seed_same_rows_whatever_the_processes(mix, tmp_path):
    one = mix(SMALL, total_sample_size=80, seed=5)
    two = mix(SMALL, total_sample_size=80, seed=5, dataset_num_proc=2, cache_dir=str(tmp_path / "other"))
    other = mix(SMALL, total_sample_size=80, seed=6)
    assert one["train"].to_dict() == two["train"].to_dict() != other["train"].to_dict()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_local_lines_are_read(mix, tmp_path, tiny_tokenizer, suffix):
    rows = [{"text": f"document number {i}", "n": i} for i in range(30)]
    path = write_lines(tmp_path / f"a{suffix}", rows)
    assert sorted(texts(mix([{path: 1.0}])["train"], tiny_tokenizer)) == sorted(r["text"] for r in rows)


def test_parquet_text_saved_sets_and_folders_are_read(mix, tmp_path, tiny_tokenizer):
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(10)]})
    rows.to_parquet(tmp_path / "a.parquet")
    rows.save_to_disk(tmp_path / "saved")
    (tmp_path / "b.txt").write_text("first line\nsecond line\n")
    (tmp_path / "folder").mkdir()
    write_lines(tmp_path / "folder" / "x.jsonl", [{"text": "in a folder"}])
    for name, expected in (("a.parquet", 10), ("saved", 10), ("b.txt", 1), ("folder", 1)):
        assert len(texts(mix([{str(tmp_path / name): 1.0}])["train"], tiny_tokenizer)) == expected


def test_bad_rows_are_counted_with_reasons_and_skipped(mix, tmp_path, messages, tiny_tokenizer):
    path = tmp_path / "bad.jsonl"
    good = json.dumps({"text": "fine"}).encode()
    path.write_bytes(
        b"\n".join(
            [
                good,
                b'{"text": null}',
                b'{"text": 3}',
                b'{"text": "\xff"}',
                b"{broken",
                b"[1]",
                b'{"other": 1}',
                b'{"text": " "}',
                good,
            ]
        )
    )
    rows = mix([{str(path): 1.0}])
    assert texts(rows["train"], tiny_tokenizer) == ["fine", "fine"]
    assert "skipped 7 of 9 rows" in messages.text
    (side_file,) = (tmp_path / "cache").glob("prepared-*/failed_rows.jsonl")
    failed = [json.loads(line) for line in side_file.read_text().splitlines()]
    assert sorted(row["reason"] for row in failed) == [
        "invalid JSON (Expecting property name enclosed in double quotes)",
        "invalid UTF-8 at byte 10",
        "no field 'text'",
        "not a JSON object",
        "text is empty",
        "text is int, not text",
        "text is null",
    ]
    assert {row["source"] for row in failed} == {str(path)} and failed[0]["where"].startswith("bad.jsonl byte ")
    with pytest.raises(ValueError, match=r"7 of 9 rows can't be used, more than max_bad_rows=2 allows.*invalid UTF-8"):
        mix([{str(path): 1.0}], max_bad_rows=2)


def test_a_torn_gzip_is_an_error_that_names_the_place(mix, tmp_path):
    path = tmp_path / "a.jsonl.gz"
    write_lines(path, [{"text": f"row {i} " + "x" * i} for i in range(500)])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged after line"):
        mix([{str(path): 1.0}])


def test_formats_of_a_formatting_function(mix, tmp_path, tiny_tokenizer):
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Hi", "response": "Hello"}] * 3)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    chat = tiny_tokenizer.apply_chat_template(turns, tokenize=False)
    for func, expected in (
        (lambda row: row["prompt"], "Hi"),
        (lambda row: {"text": row["response"]}, "Hello"),
        (lambda row: {"messages": turns}, chat),
        (lambda row: {"conversation": turns}, chat),
    ):
        row = mix([{path: 1.0}], formatting_func=func)["train"][0]
        text = tiny_tokenizer.decode(row["input_ids"][: row["seq_lengths"][0]])
        assert text.removeprefix("<|begin_of_text|>").removesuffix("<|end_of_text|>").strip() == expected.removeprefix(
            "<|begin_of_text|>"
        )


def test_without_packing_a_row_is_one_document_cut_at_the_length(mix):
    rows = mix([{"embedded:world:50": 1.0}], packing=False, max_length=16)["train"]
    assert len(rows) == 50 and all(len(n) == 1 and n[0] <= 16 for n in rows["seq_lengths"])


def test_a_short_source_repeats_and_ratios_count_rows(mix, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "unique words here"}])
    rows = mix([{path: 0.5}, {"embedded:world:200": 0.5}], total_sample_size=20)["train"]
    assert len(rows) == 20
    assert sum(ids == rows["input_ids"][0] for ids in rows["input_ids"]) in (1, 10)
    assert max(rows["input_ids"].count(ids) for ids in rows["input_ids"]) == 10


@pytest.mark.parametrize(
    ("mixture", "settings", "message"),
    [
        ([{"embedded:world": 0.5}], {}, "the ratios sum to 0.5, not 1"),
        ([{"embedded:world": 1.5}], {}, "the ratio of 'embedded:world' is 1.5"),
        ([], {}, "datasets_and_ratios is empty"),
        ([{"a": 0.5, "b": 0.5}], {}, "each entry is a dict of one name"),
        ([{"embedded:world": 0.5}, {"embedded:world": 0.5}], {}, "'embedded:world' is named twice"),
        ([{"embedded:wrld": 1.0}], {}, "did you mean 'embedded:world'"),
        ([{"fineweb_edu": 1.0}], {}, "did you mean 'fineweb-edu'"),
        ([{"embedded:world:0": 1.0}], {}, "must be a positive whole number"),
        ([{"embedded:world:20": 1.0}], {"dataset_text_field": "txt"}, "unknown field 'txt'; did you mean 'text'"),
        ([{"embedded:world:20": 1.0}], {"max_length": 1}, "max_length=1 must be at least 2"),
        ([{"embedded:world:20": 1.0}], {"total_sample_size": 0}, "total_sample_size=0 must be positive"),
        ([{"embedded:world:20": 1.0}], {"test_size": 1000}, "leaves none for training; lower test_size or add data"),
        ([{"embedded:world:20": 1.0}], {"processing_class": None}, "processing_class is missing"),
    ],
)
def test_bad_input_is_named(mix, mixture, settings, message):
    with pytest.raises(ValueError, match=message):
        mix(mixture, **settings)


def test_an_empty_source_is_named(mix, tmp_path):
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        mix([{str(tmp_path / "e.jsonl"): 1.0}])


def test_saved_rows_come_back(mix, tmp_path):
    rows = mix([{"embedded:world:50": 1.0}])
    rows.save_to_disk(tmp_path / "pt_dataset")
    assert load_from_disk(tmp_path / "pt_dataset")["train"].to_dict() == rows["train"].to_dict()


@pytest.mark.parametrize(("total", "ratios"), [(10, [0.7, 0.2, 0.05, 0.05]), (1, [0.5, 0.5]), (100, [1 / 3] * 3)])
def test_shares_are_whole_and_sum_up(total, ratios):
    assert sum(share_out(total, ratios)) == total


def test_a_bad_name_is_told_before_any_source_is_read(mix, monkeypatch):
    monkeypatch.setattr("small_doge.processor.mix_reader.open_source", lambda *_: pytest.fail("a source was read"))
    with pytest.raises(ValueError, match="did you mean 'embedded:world'"):
        mix([{"embedded:world:50": 0.5}, {"embedded:wrld": 0.5}])
