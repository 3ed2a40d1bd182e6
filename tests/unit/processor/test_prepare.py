import errno
import json
import multiprocessing
import os
import signal

import pytest

from small_doge.processor import mix_reader, prepare, readers
from small_doge.processor.data_config import DataConfig
from small_doge.processor.prepare import Preparation
from small_doge.utils.errors import UserError


MIX = [{"embedded:world:200": 0.7}, {"embedded:arithmetic:100": 0.3}]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(mix_reader, "RANGE_BYTES", 8000)
    monkeypatch.setattr(readers, "RANGE_ROWS", 20)


def mix_of(shares=None, **settings):
    return DataConfig(shares or MIX, **{"max_length": 64, "test_size": 5, **settings})


def test_a_killed_preparation_goes_on_from_its_finished_parts(tiny_tokenizer, tmp_path, monkeypatch):
    whole = prepare.prepare(mix_of(cache_dir=tmp_path / "whole"), tiny_tokenizer)

    def begin():
        made = []

        def make(self, shard, original=Preparation.make_shard):
            if len(made) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            made.append(shard)
            return original(self, shard)

        Preparation.make_shard = make
        prepare.prepare(mix_of(cache_dir=tmp_path / "killed", dataset_num_proc=1), tiny_tokenizer)

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    preparation = Preparation(mix_of(cache_dir=tmp_path / "killed"), tiny_tokenizer)
    before = sorted((preparation.folder / "shards").glob("*.arrow"))
    assert len(before) == 5 and not preparation.is_finished
    written = []
    original = prepare._write_rows
    monkeypatch.setattr(prepare, "_write_rows", lambda path, *a: (written.append(path), original(path, *a)))
    again = prepare.prepare(mix_of(cache_dir=tmp_path / "killed", dataset_num_proc=1), tiny_tokenizer)
    assert not set(written) & set(before) and written
    assert again["train"].to_dict() == whole["train"].to_dict() and again["test"].to_dict() == whole["test"].to_dict()


def test_a_finished_mix_is_loaded_and_another_setting_is_another_mix(tiny_tokenizer, tmp_path, messages):
    prepare.prepare(mix_of(cache_dir=tmp_path), tiny_tokenizer)
    prepare.prepare(mix_of(cache_dir=tmp_path), tiny_tokenizer)
    assert messages.text.count("data: using") == 1
    prepare.prepare(mix_of(seed=1, cache_dir=tmp_path), tiny_tokenizer)
    assert len(list(tmp_path.glob("prepared-*"))) == 2


def test_a_changed_file_is_prepared_again(tiny_tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    for text in ("first", "second"):
        path.write_text(json.dumps({"text": text + " text"}) + "\n")
        row = prepare.prepare(mix_of([{str(path): 1.0}], test_size=0, cache_dir=tmp_path / "c"), tiny_tokenizer)[
            "train"
        ][0]
        assert text in tiny_tokenizer.decode(row["input_ids"])


def test_no_more_parts_are_made_than_are_wanted(tiny_tokenizer, tmp_path, monkeypatch):
    made = []
    original = Preparation.make_shard
    monkeypatch.setattr(Preparation, "make_shard", lambda self, shard: (made.append(shard), original(self, shard))[1])
    few = prepare.prepare(
        mix_of(total_sample_size=20, test_size=0, cache_dir=tmp_path, dataset_num_proc=1), tiny_tokenizer
    )
    few_made = len(made)
    prepare.prepare(mix_of(total_sample_size=120, test_size=0, cache_dir=tmp_path, dataset_num_proc=1), tiny_tokenizer)
    assert len(few["train"]) == 20 and few_made < len(made) - few_made


def test_a_full_disk_and_a_killed_worker_are_told_and_what_is_done_stays(tiny_tokenizer, tmp_path, monkeypatch):
    original = Preparation.make_shard

    def fill(self, shard):
        if shard.number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, shard)

    monkeypatch.setattr(Preparation, "make_shard", fill)
    with pytest.raises(UserError, match="is full. Free some space, or set cache_dir to another disk"):
        prepare.prepare(mix_of(cache_dir=tmp_path, dataset_num_proc=1), tiny_tokenizer)
    (folder,) = tmp_path.glob("prepared-*")
    assert len(list((folder / "shards").glob("*.arrow"))) == 1
    monkeypatch.setattr(prepare, "_make_shard", kill_this_process)
    with pytest.raises(UserError, match="was killed, perhaps for want of memory. Run the same command again"):
        prepare.prepare(mix_of(cache_dir=tmp_path, dataset_num_proc=2), tiny_tokenizer)
    monkeypatch.undo()
    assert len(prepare.prepare(mix_of(cache_dir=tmp_path), tiny_tokenizer)["train"]) > 0


def kill_this_process(shard):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_report_counts_each_source_and_how_full_rows_are(tiny_tokenizer, tmp_path):
    prepare.prepare(mix_of(cache_dir=tmp_path), tiny_tokenizer)
    (path,) = tmp_path.glob("prepared-*/report.json")
    report = json.loads(path.read_text())
    assert report["packing"] == "best_fit" and report["max_length"] == 64
    facts = report["sources"]["embedded:world:200"]
    assert facts["rows"] == 200 and facts["documents"] == 200 and facts["failed"] == 0
    assert facts["used"] == facts["available"] == facts["packed_rows"] and 0.8 < facts["fill_rate"] <= 1
