"""Runs of the real command line on a tiny recipe."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from small_doge.trainer.callbacks import read_log


RECIPE = {
    "model_preset": "Doge-20M",
    "model_overrides": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 64,
        "keep_window_size": 24,
        "hidden_dropout": 0.1,
    },
    "datasets_and_ratios": [{"embedded:world:300": 0.8}, {"embedded:arithmetic:100": 0.2}],
    "total_sample_size": 96,
    "test_size": 8,
    "max_length": 64,
    "max_steps": 10,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 5e-3,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_steps": 4,
    "report_to": "none",
}

# What tests set that compare runs of another layout. Such runs add the same numbers in another order, and each
# processor in its own, so their gradients differ by rounding, a few units in 1e7. Plain gradient descent keeps
# differences at that size; Adam divides each gradient by its own size, which makes rounding of the smallest ones into
# whole steps. No key is left out, since a score at the limit could fall on either side of it.
COMPARABLE = {
    "optim": "sgd",
    "learning_rate": 0.5,
    "model_overrides": {**RECIPE["model_overrides"], "hidden_dropout": 0.0, "keep_window_size": 64},
    "max_steps": 4,
}


def read_losses(folder):
    """Losses of a run, of training and of evaluation, in the order of its log."""
    rows = read_log(folder / "training_log.jsonl")
    return [row.get("loss", row.get("eval_loss")) for row in rows if "loss" in row or "eval_loss" in row]


def assert_runs_agree(one, two):
    """Two runs under COMPARABLE log the same losses and end with the same weights, up to rounding."""
    theirs, ours = read_losses(one), read_losses(two)
    assert len(ours) == len(theirs) >= 4 and ours == pytest.approx(theirs, rel=1e-5)
    expected = load_file(one / "model.safetensors")
    actual = load_file(two / "model.safetensors")
    assert expected.keys() == actual.keys()
    for name, tensor in actual.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def assert_a_stopped_run_ends_alike(unbroken, again, out):
    """A copy of a finished run that is thrown back to checkpoint-4, and gone on with, ends with the same weights."""
    shutil.copytree(unbroken, out)
    (out / "finished.json").unlink()
    for folder in out.glob("checkpoint-*"):
        if folder.name != "checkpoint-4":
            shutil.rmtree(folder)
    done = again(out)
    assert "going on from" in done.stderr and "checkpoint-4" in done.stderr
    theirs = load_file(unbroken / "model.safetensors")
    for name, tensor in load_file(out / "model.safetensors").items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("runs")
    tiny_tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def train(workspace, tmp_path, warm_python):
    """Write a recipe and run the script of a stage on it; returns the finished process.

    With a launcher, or variables of the environment, it is a new process, which loads the libraries.
    """

    def call(output, *extra, check=True, stage="pretrain", launcher=None, env=None, **changes):
        recipe = {
            **RECIPE,
            "tokenizer_name_or_path": str(workspace / "tokenizer"),
            "cache_dir": str(workspace / "data"),
            "output_dir": str(output),
            **changes,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        words = ["--config", str(path), *extra]
        if launcher is None and env is None:
            done = warm_python.run("-m", f"small_doge.trainer.doge.{stage}", *words)
        else:
            script = launcher or [sys.executable, "-m", f"small_doge.trainer.doge.{stage}"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
            done = subprocess.run([*script, *words], capture_output=True, text=True, env=environment, timeout=900)
        if check:
            assert done.returncode == 0, done.stderr[-4000:]
        return done

    return call


@pytest.fixture
def base(workspace, train):
    """The folder of a pre-trained model, made once."""
    folder = workspace / "base"
    if not (folder / "finished.json").exists():
        train(folder)
    return folder


@pytest.fixture
def train_stage(train, base):
    """Run a stage on the base model; returns the finished process."""

    def call(stage, output, **changes):
        settings = {
            "model_preset": None,
            "model_overrides": {},
            "model_name_or_path": str(base),
            "tokenizer_name_or_path": None,
            **changes,
        }
        return train(output, stage=stage, **settings)

    return call
