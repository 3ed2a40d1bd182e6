"""Two processes on a CPU give the losses of one with the same global batch."""

import importlib.util
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from tests.integration.conftest import COMPARABLE, assert_runs_agree


ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "accelerate_configs"
SCRIPT = str(ROOT / "src" / "small_doge" / "trainer" / "doge" / "pretrain.py")
WRAPPERS = {
    "ddp": "DistributedDataParallel",
    "deepspeed_zero2": "DeepSpeedEngine",
    "deepspeed_zero3": "DeepSpeedEngine",
}
SETTINGS = {**COMPARABLE, "eval_steps": 2, "save_strategy": "no"}

pytestmark = pytest.mark.slow


@pytest.fixture
def settings():
    return dict(SETTINGS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher(name, stage="pretrain"):
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
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


def test_two_processes_train_by_muon_as_one_does(train, tmp_path, settings):
    # Small gradients of AdamW's part would let rounding decide on signs, but for the epsilon.
    settings |= {"optim": "muon", "muon_lr": 5e-3, "learning_rate": 1e-2, "adam_epsilon": 1e-2}
    train(tmp_path / "one", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    two = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    done = train(tmp_path / "two", launcher=launcher("ddp"), **two, **settings)
    assert "WRAPPED IN DistributedDataParallel" in done.stdout and "WORLD SIZE 2" in done.stdout
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("name", ["deepspeed_zero2", "deepspeed_zero3"])
def test_muon_with_split_weights_is_a_clear_error(train, tmp_path, settings, name):
    pytest.importorskip("deepspeed", reason="needs: pip install 'small-doge[deepspeed]'")
    env = {"DS_ACCELERATOR": "cpu"}
    settings |= {"optim": "muon"}
    done = train(tmp_path / "out", launcher=launcher(name), check=False, env=env, **settings)
    assert done.returncode != 0 and "optim=muon under DeepSpeed" in done.stderr


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
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("name", ["ddp", "deepspeed_zero2"])
@pytest.mark.parametrize("packing", [True, False])
def test_two_processes_fine_tune_as_one_does(train, tmp_path, settings, name, packing):
    """Rows differ in how many of their tokens are learnt, which a mean of means would weigh wrongly."""
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs: pip install 'small-doge[deepspeed]'")
    settings = {**settings, "datasets_and_ratios": [{"embedded:chat:300": 1.0}], "packing": packing}
    train(tmp_path / "one", stage="sft", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    done = train(
        tmp_path / "two",
        launcher=launcher(name, "sft"),
        env={"DS_ACCELERATOR": "cpu"} if name.startswith("deepspeed") else {},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        **settings,
    )
    assert f"WRAPPED IN {WRAPPERS[name]}" in done.stdout and "WORLD SIZE 2" in done.stdout
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


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
    assert_runs_agree(tmp_path / "one", tmp_path / "two")
