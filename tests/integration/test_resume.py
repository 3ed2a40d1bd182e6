"""Runs that are gone on with: only as what they were, at the right step and rate, and never from numbers that are none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.integration.conftest import RECIPE

from small_doge.trainer.callbacks import read_log


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def stopped(shared, train, tmp_path):
    """A run of 10 steps with checkpoints 4, 8 and 10, which died before its end was marked."""
    if not (shared / "run" / "finished.json").exists():
        train(shared / "run")
    shutil.copytree(shared / "run", tmp_path / "run")
    (tmp_path / "run" / "finished.json").unlink()
    return tmp_path / "run"


def rates(folder):
    return {row["step"]: row["learning_rate"] for row in read_log(folder / "training_log.jsonl") if "loss" in row}


def test_a_run_that_died_after_its_last_step_is_finished_without_another(stopped, shared, train):
    stderr = train(stopped).stderr
    assert "going on from" in stderr and "missing keys" not in stderr
    facts = json.loads((stopped / "finished.json").read_text())
    assert facts["steps"] == 10 and max(rates(stopped)) == 10
    expected = load_file(shared / "run" / "model.safetensors")
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in load_file(stopped / "model.safetensors").items()
    )


def test_more_steps_go_on_at_the_rates_of_the_longer_run(stopped, train, tmp_path):
    train(stopped, max_steps=14, learning_rate=2e-3)
    train(tmp_path / "long", max_steps=14, learning_rate=2e-3)
    longer, expected = rates(stopped), rates(tmp_path / "long")
    assert {step: longer[step] for step in range(11, 15)} == {step: expected[step] for step in range(11, 15)}


CHANGES = {
    "seed": ({"seed": 5}, "seed: 233 before, 5 now"),
    "data": ({"datasets_and_ratios": [{"embedded:world:400": 1.0}]}, "datasets_and_ratios"),
    "length": ({"max_length": 32}, "max_length: 64 before, 32 now"),
    "shape": (
        {"model_overrides": {**RECIPE["model_overrides"], "num_hidden_layers": 3}},
        "num_hidden_layers: 2 before",
    ),
    "batch": ({"gradient_accumulation_steps": 4}, "rows of a step: 8 before, 16 now"),
    "optimizer": ({"optim": "muon"}, 'optim: "adamw_torch" before, "muon" now'),
    "stage": (
        {"stage": "sft", "datasets_and_ratios": [{"embedded:chat:300": 1.0}]},
        'stage: "Pre-training" before, "Supervised fine-tuning" now',
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_run_is_not_gone_on_from(stopped, train, name):
    changes, message = CHANGES[name]
    before = sorted(stopped.rglob("*"))
    done = train(stopped, check=False, **changes)
    assert done.returncode == 1 and "belongs to another run" in done.stderr and message in done.stderr
    assert "overwrite" in done.stderr and "Traceback" not in done.stderr
    assert {path for path in before if "checkpoint" in str(path)} <= set(stopped.rglob("*"))


def test_a_finished_folder_of_another_stage_is_not_taken_for_this_one(shared, train, stopped):
    done = train(shared / "run", stage="sft", check=False)
    assert done.returncode == 1 and "the result of another stage (Pre-training, now Supervised" in done.stderr


def test_the_named_checkpoint_is_gone_on_from(stopped, train):
    done = train(stopped, check=False, resume_from_checkpoint=str(stopped / "checkpoint-7"))
    assert done.returncode == 1 and "checkpoint-7: there is no such folder; did you mean" in done.stderr
    done = train(stopped, resume_from_checkpoint=str(stopped / "checkpoint-4"))
    assert f"going on from {stopped / 'checkpoint-4'}" in done.stderr


def test_a_run_that_can_not_start_over_leaves_the_old_one(stopped, train):
    done = train(stopped, check=False, overwrite=True, datasets_and_ratios=[{"nowhere.jsonl": 1.0}])
    assert done.returncode == 1 and (stopped / "checkpoint-10" / "model.safetensors").is_file()


def test_a_run_whose_optimizer_can_not_be_made_leaves_the_old_one(shared, stopped, train):
    (stopped / "finished.json").write_text("{}")
    start = {"model_preset": None, "model_overrides": None, "continue_from": str(shared / "run" / "checkpoint-4")}
    done = train(stopped, check=False, overwrite=True, warmup_steps=0, optim="adafactor", **start)
    assert done.returncode == 1 and "the state of another optimizer" in done.stderr
    assert (stopped / "checkpoint-10" / "model.safetensors").is_file() and (stopped / "finished.json").is_file()
    assert len(read_log(stopped / "training_log.jsonl")) >= 10


def test_going_on_from_a_checkpoint_in_its_decay_is_said(shared, train, tmp_path):
    if not (shared / "run" / "finished.json").exists():
        train(shared / "run")
    start = {"model_preset": None, "model_overrides": None, "continue_from": str(shared / "run" / "checkpoint-10")}
    done = train(tmp_path / "next", warmup_steps=0, max_steps=1, **start)
    assert "the learning rate changes from" in done.stderr and "name a checkpoint of the stable phase" in done.stderr


def test_a_run_that_diverges_saves_nothing_that_is_no_number(train, tmp_path):
    out = tmp_path / "out"
    done = train(out, check=False, learning_rate=1e30, max_grad_norm=0, save_steps=1, logging_steps=10)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "not finite" in done.stderr or "the loss is nan" in done.stderr
    for file in out.glob("checkpoint-*/model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(file).values())


def test_the_best_checkpoint_is_kept_and_its_weights_are_the_result(train, tmp_path):
    out = tmp_path / "out"
    settings = {"save_steps": 2, "eval_steps": 2, "save_total_limit": 2, "load_best_model_at_end": True}
    train(out, **settings, metric_for_best_model="eval_loss", greater_is_better=True)  # so that the first is the best
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-2", "checkpoint-8"]
    best = load_file(out / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in load_file(out / "model.safetensors").items())


def test_one_step_is_a_run(train, tmp_path):
    train(tmp_path / "out", max_steps=1)
    assert json.loads((tmp_path / "out" / "finished.json").read_text())["steps"] == 1


def test_a_checkpoint_keeps_what_was_asked_for_apart_from_what_the_machine_made_of_it(stopped):
    recipe = yaml.safe_load((stopped / "checkpoint-4" / "recipe.yaml").read_text())
    machine = json.loads((stopped / "checkpoint-4" / "machine.json").read_text())
    assert "use_cpu" not in recipe and recipe["learning_rate"] == 5e-3
    assert machine["machine"]["cores"] > 0
    assert torch.cuda.is_available() or machine["adapted"]["use_cpu"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="about processes that are forked")
def test_a_killed_command_leaves_no_process_behind(train, tmp_path):
    train(tmp_path / "out", check=False, learning_rate="oops")  # writes the recipe, starts nothing
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text()) | {"learning_rate": 5e-3}
    recipe |= {"cache_dir": str(tmp_path / "data"), "dataset_num_proc": 2, "total_sample_size": 2000}
    recipe["datasets_and_ratios"] = [{"embedded:world:20000": 0.5}, {"embedded:textbook:20000": 0.5}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "small_doge.trainer.doge.pretrain", "--config", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    parent, deadline = psutil.Process(process.pid), time.monotonic() + 120
    while len(workers := parent.children(recursive=True)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    started = time.monotonic()
    process.stdout.read()  # returns when nobody holds the pipe any more
    assert time.monotonic() - started < 15
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


def test_the_state_of_another_optimizer_is_not_gone_on_with(shared, train, tmp_path):
    if not (shared / "run" / "finished.json").exists():
        train(shared / "run")
    start = {"model_preset": None, "model_overrides": None, "continue_from": str(shared / "run" / "checkpoint-4")}
    for optim in ("muon", "adafactor"):
        done = train(tmp_path / "next", check=False, warmup_steps=0, optim=optim, **start)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"the state of another optimizer (adamw_torch) than optim={optim}" in done.stderr


def test_the_checkpoint_before_the_decay_is_kept_and_gone_on_from(train, tmp_path):
    out = tmp_path / "out"
    done = train(out, keep_stable_checkpoint=True, save_steps=2, save_total_limit=1, decay_steps=3, warmup_steps=1)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-7"], done.stderr
    start = {"model_preset": None, "model_overrides": None, "continue_from": str(out / "checkpoint-7")}
    done = train(tmp_path / "next", warmup_steps=0, max_steps=2, save_steps=1, weight_decay=0.3, **start)
    assert "the learning rate changes" not in done.stderr
    state = torch.load(tmp_path / "next" / "checkpoint-2" / "optimizer.pt", weights_only=True)
    decays = [group["weight_decay"] for group in state["param_groups"]]
    assert sorted(set(decays)) == [0.0, 0.3]  # those of the recipe, not of the checkpoint


def test_a_stable_checkpoint_needs_checkpoints_and_a_stable_phase(train, tmp_path):
    done = train(tmp_path / "out", check=False, keep_stable_checkpoint=True, save_strategy="no")
    assert done.returncode == 1 and "save_strategy is no" in done.stderr
    done = train(tmp_path / "out", check=False, keep_stable_checkpoint=True, lr_scheduler_type="cosine")
    assert done.returncode == 1 and "needs a stable phase" in done.stderr
