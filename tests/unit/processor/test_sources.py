import gzip
import json
from pathlib import Path

import boto3
import pytest
from datasets import Dataset, DatasetDict
from moto.server import ThreadedMotoServer
from tests.hub_copies import build_hub

from small_doge.processor import ft_datasets_process, pt_datasets_process
from small_doge.processor.catalog import CATALOG
from small_doge.processor.download import fetch_python_edu
from small_doge.processor.sources import DATA_ROOT, open_source
from small_doge.utils.errors import UserError


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    root = build_hub(tmp_path / "mirror")
    monkeypatch.setenv(DATA_ROOT, str(root))
    return root


@pytest.fixture
def archive(monkeypatch):
    """A local S3 server with the texts of all files but number 3, and a damaged number 4."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in (("AWS_ENDPOINT_URL_S3", address), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="softwareheritage")
    for i in range(24):
        if i != 3:
            body = b"not gzip" if i == 4 else gzip.compress(f"x = {i}\nprint(x)\n".encode())
            s3.put_object(Bucket="softwareheritage", Key=f"content/{i:040d}", Body=body, ACL="public-read")
    yield server
    server.stop()


def rows_of(name):
    source = open_source(name)
    return [record for file_range in source.ranges for record in source.read(file_range)]


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "python-edu"])
def test_every_known_data_set_is_read_from_a_mirror_with_the_hubs_layout(mirror, name):
    records = rows_of(name)
    assert len(records) == 24 and all(record.row for record in records)
    entry = CATALOG[name]
    assert set(entry.fields) <= set(records[0].row)
    full_name = entry.hub_name + (f":{entry.subset}" if entry.subset else "")
    assert [r.row for r in rows_of(full_name)] == [r.row for r in records]


def test_the_guides_pre_training_mix_works_on_a_mirror(mirror, archive, tiny_tokenizer, tmp_path):
    rows = pt_datasets_process.mix_datasets_by_radio(
        datasets_and_ratios=[{"fineweb-edu": 0.7}, {"cosmopedia-v2": 0.2}, {"python-edu": 0.05}, {"finemath": 0.05}],
        total_sample_size=40,
        dataset_text_field="text",
        processing_class=tiny_tokenizer,
        max_length=64,
        packing=True,
        formatting_func=None,
        dataset_num_proc=2,
        seed=233,
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    assert {name: rows["source"].count(name) for name in set(rows["source"])} == {
        "fineweb-edu": 28,
        "cosmopedia-v2": 8,
        "python-edu": 2,
        "finemath": 2,
    }
    text = "".join(tiny_tokenizer.decode(row["input_ids"]) for row in rows if row["source"] == "python-edu")
    assert "print(x)" in text


def test_the_guides_fine_tuning_mixes_work_on_a_mirror(mirror, tiny_tokenizer, tmp_path):
    common = {"processing_class": tiny_tokenizer, "max_length": 256, "cache_dir": str(tmp_path / "cache")}
    instruct = [{"smoltalk": 0.8}, {"ultrafeedback_binarized": 0.2}]
    rows = ft_datasets_process.mix_datasets_by_radio(
        instruct, total_sample_size=20, apply_chat_template=True, packing=False, dataset_text_field="text", **common
    )["train"]
    assert rows["source"].count("smoltalk") == 16
    assert len(ft_datasets_process.mix_datasets_by_ratio(instruct, row_format="preference", **common)["train"]) == 24
    reason = [{"OpenThoughts-114k": 0.7}, {"OpenR1-Math-220k": 0.3}]
    rows = ft_datasets_process.mix_datasets_by_ratio(
        reason, total_sample_size=20, apply_chat_template=True, apply_thinking_template=True, **common
    )["train"]
    assert all("<think>\nI add" in tiny_tokenizer.decode(row["input_ids"]) for row in rows)
    problems = ft_datasets_process.mix_datasets_by_ratio(
        [{"NuminaMath-TIR": 0.5}, {"OpenR1-Math-220k": 0.5}], row_format="problem", **common
    )["train"]
    assert len(problems) == 48 and all(row["solution"] for row in problems)


def test_cosmopedias_prompts_become_turns_on_request(mirror, tiny_tokenizer, tmp_path):
    common = {"processing_class": tiny_tokenizer, "max_length": 128, "cache_dir": str(tmp_path), "packing": False}
    plain = pt_datasets_process.mix_datasets_by_ratio([{"cosmopedia-v2": 1.0}], **common)["train"][0]
    assert "Write about" not in tiny_tokenizer.decode(plain["input_ids"])
    turns = pt_datasets_process.mix_datasets_by_ratio(
        [{"cosmopedia-v2": 1.0}], apply_chat_template=True, identity="I am Doge.", **common
    )["train"]
    texts = [tiny_tokenizer.decode(row["input_ids"]) for row in turns]
    assert all("<|start_header_id|>user<|end_header_id|>\n\nWrite about" in text for text in texts)


def test_texts_of_python_edu_come_from_the_archive_and_failures_are_counted(mirror, archive):
    records = rows_of("python-edu")
    texts = [record.row["text"] for record in records if record.row]
    assert len(texts) == 22 and all("print(x)" in text for text in texts)
    assert sorted(record.problem.split(" (")[0] for record in records if not record.row) == [
        f"file {4:040d} is damaged in the archive",
        f"the archive has no file {3:040d}",
    ]


def test_fetched_texts_are_used_in_place_of_the_archive_and_not_fetched_again(mirror, archive, monkeypatch):
    folder = mirror / "HuggingFaceTB/smollm-corpus"
    indexes = sorted((folder / "python-edu").glob("*.parquet"))
    monkeypatch.setattr("small_doge.processor.download.SHARD_ROWS", 10)
    texts = fetch_python_edu(folder, indexes)
    assert len(list(texts.glob("*.parquet"))) == 3
    assert len((texts / "failed_rows.jsonl").read_text().splitlines()) == 2
    expected = [record.row["text"] for record in rows_of("python-edu")]
    archive.stop()
    (texts / "finished.json").unlink()
    fetch_python_edu(folder, indexes)  # every shard is there: the archive is not asked
    assert [record.row["text"] for record in rows_of("python-edu")] == expected and len(expected) == 22
    archive.start()


def test_an_archive_that_can_not_be_reached_is_told(mirror, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("small_doge.processor.software_heritage.ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"archive can't be reached.*\n.*it goes on where it stopped"):
        rows_of("python-edu")


def test_a_mirror_that_lacks_a_subset_or_a_split_says_how_to_get_it(mirror):
    for path in (mirror / "HuggingFaceTB/smollm-corpus/cosmopedia-v2").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="data download HuggingFaceTB/smollm-corpus:cosmopedia-v2"):
        open_source("cosmopedia-v2")
    assert len(rows_of("fineweb-edu")) == 24
    with pytest.raises(ValueError, match="unknown subset 'cosmopedia'; did you mean 'cosmopedia-v2'"):
        open_source("HuggingFaceTB/smollm-corpus:cosmopedia")


def test_a_mirror_without_cards_goes_by_the_names_of_folders_and_files(mirror):
    for card in mirror.rglob("README.md"):
        card.unlink()
    assert len(rows_of("cosmopedia-v2")) == len(rows_of("ultrafeedback_binarized")) == 24


def test_without_mirror_or_connection_the_message_says_what_to_do(monkeypatch):
    monkeypatch.delenv(DATA_ROOT, raising=False)

    def fail(*_):
        raise ConnectionError("Couldn't reach 'someone/set' on the Hub")

    monkeypatch.setattr("small_doge.processor.sources.load_dataset_builder", fail)
    with pytest.raises(ValueError, match=r"could not be read from the hub.*\n.*set SMALL_DOGE_DATA_ROOT"):
        open_source("someone/set")


def write_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}) + "\n")


FOLDERS = {
    "flat": (["train.jsonl", "validation.jsonl", "test.jsonl"], ["train.jsonl"]),
    "shards": (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "dev-00000.jsonl"], 2),
    "folders": (["train/a.jsonl", "train/b.jsonl", "val/a.jsonl", "test/a.jsonl"], ["train/a.jsonl", "train/b.jsonl"]),
    "no split": (["one.jsonl", "more/two.jsonl"], ["more/two.jsonl", "one.jsonl"]),
    "no train": (["one.jsonl", "test.jsonl"], ["one.jsonl"]),
    "test alone": (["test.jsonl"], ["test.jsonl"]),
    "notes": (
        ["a.jsonl", "LICENSE", "LICENSE.txt", "notes.md", "dataset_infos.json", "README.md", ".hidden.jsonl", "x.txt"],
        ["a.jsonl"],
    ),
    "prose": (["a.txt", "b.md", "LICENSE.md", "CITATION.txt"], ["a.txt", "b.md"]),
    "upper case": (["A.JSONL", "TRAIN.md"], ["A.JSONL"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_for_training_alone_and_what_is_left_out_is_told(tmp_path, messages, name):
    names, expected = FOLDERS[name]
    write_files(tmp_path, names)
    found = [str(Path(file_range.path).relative_to(tmp_path)) for file_range in open_source(str(tmp_path)).ranges]
    assert found == expected or len(found) == expected
    left_out = [n for n in names if n.endswith((".jsonl", ".txt", ".md", ".json")) and n not in found and n[0] != "."]
    assert all(other in messages.text for other in left_out)
    assert bool(messages.text) == bool(left_out or name == "test alone")


def test_a_folder_without_a_training_split_is_read_with_a_warning_that_names_its_files(tmp_path, messages):
    write_files(tmp_path, ["test.jsonl", "more/dev.jsonl"])
    for _ in range(2):
        open_source(str(tmp_path))
    assert len(messages.lines) == 1
    assert "holds no split train; read instead: more/dev.jsonl, test.jsonl" in messages.text


def test_a_saved_data_set_without_a_training_split_is_read_with_a_warning_that_names_the_split(tmp_path, messages):
    DatasetDict(test=Dataset.from_list([{"text": "a"}])).save_to_disk(tmp_path)
    assert open_source(str(tmp_path)).ranges
    assert messages.lines == [f"{tmp_path} holds no split train; read instead: test"]


@pytest.mark.parametrize("name", ["nowhere.jsonl", "./rows", "/nowhere/rows", "data/rwos", "a/b/c", "rows.JSONL"])
def test_a_path_that_is_not_there_is_told_as_such(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, ["data/rows"])
    with pytest.raises(UserError, match=f"there is no file or folder {name}"):
        open_source(name)


def test_a_near_name_is_offered_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, ["data/rows.jsonl"])
    with pytest.raises(UserError, match="did you mean data/rows.jsonl"):
        open_source("data/row.jsonl")
    with pytest.raises(UserError, match="in data there is no dta"):
        open_source("data/dta/rows.jsonl")


def test_texts_to_measure_on_or_to_keep_out_are_those_of_every_split(tmp_path, messages):
    write_files(tmp_path, ["train.jsonl", "test.jsonl", "LICENSE.md"])
    ranges = open_source(str(tmp_path), all_splits=True).ranges
    assert [Path(file_range.path).name for file_range in ranges] == ["test.jsonl", "train.jsonl"]
