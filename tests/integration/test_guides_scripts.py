"""The published guides' scripts as their users call them, on copies of the data sets that a stand-in for the hub serves."""

from pathlib import Path

import pytest
from datasets import load_from_disk
from tests.fake_hub import FakeHub
from tests.hub_copies import build_hub
from tests.warm_python import WarmPython
from transformers import AutoTokenizer


SCRIPTS = Path(__file__).parents[2] / "examples" / "utils"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with FakeHub(build_hub(tmp_path_factory.mktemp("hub"))) as hub:
        yield hub


@pytest.fixture(scope="module")
def python(tmp_path_factory, hub):
    """A user's Python, whose hub is the stand-in."""
    home = tmp_path_factory.mktemp("home")
    python = WarmPython(HF_ENDPOINT=hub.address, HF_HOME=str(home), HF_HUB_OFFLINE="0")
    yield python
    python.close()


@pytest.fixture
def run(tmp_path, python):
    def call(script, *args, check=True):
        done = python.run(str(SCRIPTS / script), *map(str, args), cwd=tmp_path)
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done

    return call


@pytest.fixture
def tokenizer(workspace):
    return workspace / "tokenizer"


PT = ["--only", "fineweb-edu", "cosmopedia-v2", "finemath"]  # python-edu's archive is tested by itself


def test_pre_training_data_are_fetched_processed_and_joined(run, tmp_path, tokenizer):
    run("download_pt_datasets.py", *["--save_dir", "./datasets", "--cache_dir", "./cache", "--num_proc", "1"], *PT)
    assert len(list((tmp_path / "datasets/HuggingFaceTB/smollm-corpus/cosmopedia-v2").glob("*.parquet"))) == 2
    options = "--datasets_dir ./datasets --save_dir ./datasets --train_examples 30 --test_examples 4 --max_length 64"
    run("preprocess_pt_datasets.py", *options.split(), "--tokenizer_name_or_path", tokenizer, "--num_proc", "2", *PT)
    processed = load_from_disk(tmp_path / "datasets" / "cosmopedia-v2_processed")
    assert len(processed[0]["input_ids"]) == len(processed[0]["attention_mask"]) == 64
    text = AutoTokenizer.from_pretrained(tokenizer).decode(processed[0]["input_ids"])
    assert "<|start_header_id|>user" in text
    run("concatenate_pt_datasets.py", *options.split()[:-2], "--num_proc", "1", *PT)
    splits = load_from_disk(tmp_path / "datasets" / "pretrain")
    assert len(splits["test"]) == 4 and 0 < len(splits["train"]) <= 30
    seen = {tuple(ids) for ids in splits["train"]["input_ids"]}
    assert not seen & {tuple(ids) for ids in splits["test"]["input_ids"]}


def test_fine_tuning_data_are_processed_and_joined(run, tmp_path, hub, tokenizer):
    options = ["--datasets_dir", hub.root, "--save_dir", "./datasets", "--tokenizer_name_or_path", tokenizer]
    run("preprocess_ft_datasets.py", *options, "--num_proc", "8", "--max_length", "256")
    options = ["--datasets_dir", "./datasets", "--save_dir", "./datasets", "--num_proc", "1", "--test_examples", "2"]
    run("concatenate_ft_datasets.py", *options)
    stages = ("sft", "dpo", "distill", "grpo")
    columns = {s: set(load_from_disk(tmp_path / "datasets" / s)["train"].column_names) for s in stages}
    assert {"input_ids", "labels", "seq_lengths"} <= columns["sft"] & columns["distill"]
    assert {"prompt", "chosen", "rejected"} <= columns["dpo"] and {"prompt", "solution"} <= columns["grpo"]


def test_a_lost_connection_is_told_and_the_next_run_goes_on(run, tmp_path, hub):
    args = ["--save_dir", "./datasets", "--num_proc", "1", "--only", "finemath"]
    hub.break_after = 50
    try:
        done = run("download_pt_datasets.py", *args, check=False)
    finally:
        hub.break_after = None
    assert done.returncode == 1 and "the connection was lost" in done.stderr and "goes on where" in done.stderr
    assert "Traceback" not in done.stderr
    folder = tmp_path / "datasets/HuggingFaceTB/finemath/finemath-4plus"
    assert not list(folder.glob("*.parquet"))  # nothing half-written under its name
    run("download_pt_datasets.py", *args)
    files = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert files == {p.name: p.read_bytes() for p in (hub.root / "HuggingFaceTB/finemath/finemath-4plus").iterdir()}
    before = len(hub.requests)
    run("download_pt_datasets.py", *args)
    assert not [r for r in hub.requests[before:] if r[0] == "GET" and r[1].endswith(".parquet")]


def test_without_a_folder_data_go_where_the_guides_look_for_them(run, tmp_path):
    run("download_pt_datasets.py", "--cache_dir", "./cache", "--num_proc", "1", "--only", "finemath")
    assert list((tmp_path / "datasets/HuggingFaceTB/finemath/finemath-4plus").glob("*.parquet"))


def test_fine_tuning_data_are_fetched_under_either_name(run, tmp_path):
    for script in ("download_ft_datasets.py", "download_ft_dataset.py"):
        folder = tmp_path / script
        run(script, "--save_dir", folder, "--cache_dir", "./cache", "--num_proc", "1", "--only", "smoltalk")
        assert list(folder.rglob("*.parquet"))


def test_without_processed_data_the_script_to_run_first_is_named(run):
    done = run("concatenate_pt_datasets.py", "--datasets_dir", "./none", "--save_dir", ".", check=False)
    assert done.returncode == 1 and "with preprocess_pt_datasets.py" in done.stderr and "Traceback" not in done.stderr


def test_a_tokenizer_is_trained_from_an_old_one(run, tmp_path, hub, tokenizer):
    options = ["--datasets_dir", hub.root, "--save_dir", "./new", "--vocab_size", "300", "--num_samples", "60"]
    run("train_tokenizer_from_old.py", *options, "--tokenizer_name_or_path", tokenizer, *PT)
    new = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert len(new) <= 300 and new.chat_template == AutoTokenizer.from_pretrained(tokenizer).chat_template
