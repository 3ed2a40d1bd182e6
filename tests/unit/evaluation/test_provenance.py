"""Hashes of models: another one for whatever decides the answers, the same one for all else."""

import subprocess
from pathlib import Path

import pytest

from small_doge.evaluation import provenance
from small_doge.evaluation.provenance import find_commit, hash_model


FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "modeling_own.py",
)


@pytest.mark.parametrize("name", FILES)
def test_any_file_that_decides_answers_changes_the_hash(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    before = hash_model(str(tmp_path))
    (tmp_path / name).write_text("one")
    first = hash_model(str(tmp_path))
    (tmp_path / name).write_text("two")
    assert len({before, first, hash_model(str(tmp_path))}) == 3


def test_what_decides_no_answer_leaves_the_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = hash_model(str(tmp_path))
    for name in ("README.md", "training_args.bin", "optimizer.pt", "training_log.jsonl"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tokenizer").mkdir()
    assert hash_model(str(tmp_path)) == before


def test_a_hub_model_is_hashed_by_its_files_in_the_cache(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    folders = {"owner/model": tmp_path, "owner/other": tmp_path}
    monkeypatch.setattr(provenance, "find_cached_folder", folders.get)
    first = hash_model("owner/model")
    assert len({first, hash_model("owner/other"), hash_model("owner/unseen")}) == 3
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    assert hash_model("owner/model") != first


def test_the_commit_is_that_of_the_repository_which_holds_the_code(tmp_path, monkeypatch):
    """Not of the one that a reader's environment with an installed wheel lies in."""

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    file = tmp_path / "site-packages" / Path(provenance.__file__).name
    file.parent.mkdir()
    file.write_text("")
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "Begin")
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert find_commit() is None
    git("add", "-f", str(file))
    assert find_commit() == git("rev-parse", "HEAD").strip()
