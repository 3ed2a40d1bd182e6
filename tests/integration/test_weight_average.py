"""A run whose finished weights are an average of its last ones."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from small_doge import DogeForCausalLM


def read_weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["uniform", "ema"])
def test_finished_weights_are_the_average_of_the_last_steps(tmp_path, train, kind):
    settings = {"weight_average_share": 0.4, "weight_average_decay": 0.7, "save_steps": 1, "save_total_limit": 10}
    train(tmp_path / kind, weight_average=kind, **settings)
    steps = [read_weights(tmp_path / kind / f"checkpoint-{step}") for step in (7, 8, 9, 10)]
    finished = read_weights(tmp_path / kind)
    for name, tensor in finished.items():
        expected = steps[0][name]
        for count, weights in enumerate(steps[1:], 1):
            share = 0.3 / (1 - 0.7 ** (count + 1)) if kind == "ema" else 1 / (count + 1)
            expected = torch.lerp(expected, weights[name], share)
        torch.testing.assert_close(tensor, expected, msg=lambda m, n=name: f"{n}: {m}")
    raw = DogeForCausalLM.from_pretrained(tmp_path / kind / "raw_weights").state_dict()
    assert all(torch.equal(raw[name], tensor) for name, tensor in steps[-1].items())
    assert (tmp_path / kind / "raw_weights" / "tokenizer.json").is_file()  # so that both can be tried
    assert any(not torch.equal(finished[name], tensor) for name, tensor in steps[-1].items())


def test_weights_that_are_not_finite_are_not_left_beside_the_average(train, tmp_path):
    settings = {"learning_rate": 1e30, "max_grad_norm": 0, "logging_steps": 100, "save_strategy": "no"}
    done = train(tmp_path / "out", check=False, weight_average="uniform", eval_strategy="no", **settings)
    assert done.returncode == 1 and "not finite" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "raw_weights").exists()


def test_a_stopped_run_by_muon_ends_with_the_same_average(train, tmp_path):
    settings = {"weight_average": "uniform", "weight_average_share": 0.5, "save_steps": 4}
    settings |= {"optim": "muon", "muon_momentum_warmup_steps": 6, "muon_weight_decay": 0.1, "embedding_lr": 1e-2}
    train(tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint-10")
    (tmp_path / "stopped" / "finished.json").unlink()
    assert "checkpoint-8" in train(tmp_path / "stopped", **settings).stderr
    expected = read_weights(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_weights(tmp_path / "stopped").items())
    losses = [
        json.loads((tmp_path / run / "finished.json").read_text())["held-out loss"] for run in ("whole", "stopped")
    ]
    assert losses[0] == losses[1]


def test_a_run_that_is_made_longer_averages_its_new_last_steps_alone(train, tmp_path):
    settings = {"weight_average": "uniform", "weight_average_share": 0.25, "save_steps": 1, "save_total_limit": 10}
    train(tmp_path, max_steps=6, **settings)
    (tmp_path / "finished.json").unlink()
    assert "checkpoint-6" in train(tmp_path, max_steps=8, **settings).stderr
    steps = [read_weights(tmp_path / f"checkpoint-{step}") for step in (7, 8)]
    for name, tensor in read_weights(tmp_path).items():
        torch.testing.assert_close(tensor, (steps[0][name] + steps[1][name]) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_average": "mean"}, "weight_average='mean' is unknown"),
        ({"weight_average": "ema", "weight_average_share": 0}, "weight_average_share=0"),
        ({"weight_average": "ema", "weight_average_decay": 1.0}, "weight_average_decay=1.0"),
        (
            {"weight_average": "ema", "load_best_model_at_end": True, "save_steps": 2, "eval_steps": 2},
            "each decide what the finished model is",
        ),
    ],
)
def test_what_can_not_be_averaged_is_refused(train, tmp_path, settings, message):
    done = train(tmp_path / "out", check=False, **settings)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
