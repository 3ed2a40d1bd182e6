"""Two processes on a CPU give the losses of one with the same global batch."""

import importlib.util
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from small_doge.trainer.callbacks import read_log


ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "accelerate_configs"
SCRIPT = str(ROOT / "src" / "small_doge" / "trainer" / "doge" / "pt.py")
WRAPPERS = {
    "ddp": "DistributedDataParallel",
    "deepspeed_zero2": "DeepSpeedEngine",
    "deepspeed_zero3": "DeepSpeedEngine",
}
SETTINGS = {
    "max_steps": 4,
    "eval_steps": 2,
    "save_steps": 4,
    "model_overrides": None,
    "save_strategy": "no",
    "max_grad_norm": 0.0,
}

pytestmark = pytest.mark.slow


@pytest.fixture
def settings():
    from tests.integration.conftest import RECIPE

    return {**SETTINGS, "model_overrides": {**RECIPE["model_overrides"], "hidden_dropout": 0.0}}


def losses(folder):
    return [row.get("loss", row.get("eval_loss")) for row in read_log(folder / "training_log.jsonl")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher(name, stage="pt"):
    """A wrapper around the script, so that it also prints what the model was wrapped in."""
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{name}.yaml")),
        *("--num_processes", "2", "--main_process_port", str(free_port())),
        *(str(Path(__file__).parent / "report_wrapper.py"), stage),
    ]


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_two_processes_agree_with_one(train, tmp_path, settings, name):
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs: pip install 'small-doge[deepspeed]'")
    env = {"DS_ACCELERATOR": "cpu"} if name.startswith("deepspeed") else {}
    train(tmp_path / "one", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    done = train(
        tmp_path / "two",
        launcher=launcher(name),
        env=env,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        **settings,
    )
    assert f"WRAPPED IN {WRAPPERS[name]}" in done.stdout
    assert "WORLD SIZE 2" in done.stdout
    if name == "deepspeed_zero3":
        assert "PARTITIONED" in done.stdout
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) > 4
    assert two == pytest.approx(one, rel=1e-5)
    ours, theirs = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    for key in ours:
        # Adam divides tiny gradients by themselves, so single weights of rare tokens may differ; their mean may not.
        assert (ours[key] - theirs[key]).abs().mean() < 1e-4, key


def test_zero3_gathers_the_tables_of_experts(train, tmp_path, settings):
    pytest.importorskip("deepspeed", reason="needs: pip install 'small-doge[deepspeed]'")
    experts = {"num_experts": 64, "num_experts_per_tok": 4, "router_aux_loss_coef": 0.0}
    settings = {
        **settings,
        "model_preset": "Doge-20M-MoE",
        "model_overrides": {**settings["model_overrides"], **experts},
    }
    train(tmp_path / "one", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    two = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "env": {"DS_ACCELERATOR": "cpu"}}
    train(tmp_path / "two", launcher=launcher("deepspeed_zero3"), **two, **settings)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize("name", ["ddp", "deepspeed_zero2"])
@pytest.mark.parametrize("packing", [True, False])
def test_two_processes_fine_tune_as_one_does(train, tmp_path, settings, name, packing):
    """Rows differ in how many of their tokens are learnt, which a mean of means would weigh wrongly."""
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs: pip install 'small-doge[deepspeed]'")
    settings = {**settings, "datasets_and_ratios": [{"embedded:chat:300": 1.0}], "packing": packing}
    alone = [sys.executable, "-m", "small_doge.trainer.doge.sft"]
    train(tmp_path / "one", launcher=alone, per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    done = train(
        tmp_path / "two",
        launcher=launcher(name, "sft"),
        env={"DS_ACCELERATOR": "cpu"} if name.startswith("deepspeed") else {},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        **settings,
    )
    assert f"WRAPPED IN {WRAPPERS[name]}" in done.stdout and "WORLD SIZE 2" in done.stdout
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) > 4
    assert two == pytest.approx(one, rel=5e-5)


def test_fsdp_on_a_cpu_is_a_clear_error(train, tmp_path, settings):
    if torch.cuda.is_available():
        pytest.skip("about machines without a GPU")
    done = train(tmp_path / "out", launcher=launcher("fsdp"), check=False, env=dict(os.environ), **settings)
    assert done.returncode != 0 and "FSDP needs GPUs" in done.stderr


@pytest.mark.gpu
def test_fsdp_on_two_gpus_agrees_with_one(train, tmp_path, settings):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    train(tmp_path / "one", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    train(
        tmp_path / "two",
        launcher=launcher("fsdp"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        **settings,
    )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
