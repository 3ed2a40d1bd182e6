"""Every command that writes a folder, on folders that hold something."""

import json

import pytest
from tests.conftest import build_tiny
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.utils.errors import UserError


COMMANDS = {
    "tokenizer": ["tokenizer", "train", "--data", "rows.jsonl", "--vocab-size", "300", "--output", "out"],
    "data": ["data", "prepare", "--data", "rows.jsonl", "--tokenizer", "model", "--max-length", "64", "-o", "out"],
    "upcycle": ["upcycle", "model", "--num-experts", "16", "--num-experts-per-tok", "2", "--output", "out"],
    "export hf": ["export", "model", "--format", "hf", "--output", "out"],
    "export onnx": ["export", "model", "--quantize", "none", "--output", "out"],
}


@pytest.fixture
def run(monkeypatch, tmp_path, tiny_tokenizer):
    monkeypatch.chdir(tmp_path)
    build_tiny(vocab_size=len(tiny_tokenizer)).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"text": f"Ada has {i} balls, and Ben has {i * i}."} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(name, *more):
        return CliRunner().invoke(app, [*COMMANDS[name], *more])

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_results_are_made_again_but_nothing_else_is_ever_deleted(run, tmp_path, name):
    for _ in range(2):
        assert run(name).exit_code == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    refused = run(name)
    assert isinstance(refused.exception, UserError) and "notes.txt" in str(refused.exception)
    assert "--overwrite" in str(refused.exception)
    assert run(name, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert {path.name for path in (tmp_path / "out").iterdir()} == files


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("output", ["rows.jsonl", ".", "link", "model", "/proc/out"])
def test_outputs_that_can_not_be_are_refused_before_work(run, tmp_path, monkeypatch, name, output):
    (tmp_path / "link").symlink_to(tmp_path / "model")
    before = sorted((tmp_path / "model").iterdir())
    refused = run(name, "--output", output)
    assert isinstance(refused.exception, UserError) and "output" in str(refused.exception)
    assert sorted((tmp_path / "model").iterdir()) == before and (tmp_path / "rows.jsonl").is_file()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_of_data_is_not_replaced_by_what_is_prepared_from_it(run, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "rows.jsonl").rename(tmp_path / "raw" / "rows.jsonl")
    for output in ("raw", "raw/prepared"):
        refused = run("data", "--data", "raw", "--output", output, "--overwrite")
        assert isinstance(refused.exception, UserError) and "raw" in str(refused.exception)
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["rows.jsonl"]
