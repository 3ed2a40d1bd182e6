import json

import pytest
import torch
from safetensors.torch import save_file

from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.checkpoints import discard_run, estimate_checkpoint, estimate_disk, find_last_whole, rotate
from small_doge.utils.files import find_damage, write_manifest


@pytest.fixture
def run(tmp_path):
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.ones(step)}, folder / "model.safetensors")
        write_manifest(folder)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "per_parameter"),
    [
        ({"save_strategy": "no"}, 4),
        ({}, 12 * 4 + 4),
        ({"optim": "muon"}, 8 * 4 + 4),
        ({"weight_average": "ema"}, 16 * 4 + 8),
    ],
)
def test_the_disk_of_a_run_holds_its_checkpoints_if_it_writes_any(tmp_path, settings, per_parameter):
    args = StageArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **settings)
    model = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(100, 10, bias=False)})  # a name that Muon trains
    assert estimate_disk(model, args) == 1000 * per_parameter


def test_a_checkpoint_of_an_adapter_holds_no_frozen_weights(tmp_path):
    args = StageArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    model = torch.nn.ModuleDict({"base": torch.nn.Linear(100, 10), "lora": torch.nn.Linear(10, 1, bias=False)})
    model["base"].requires_grad_(False)
    assert estimate_checkpoint(model, args) == 10 * 12


def test_the_last_by_number_is_found(run):
    assert find_last_whole(run).name == "checkpoint-100"
    assert find_last_whole(run / "nowhere") is None


@pytest.mark.parametrize(
    ("tear", "reason"),
    [
        (lambda f: (f / "manifest.json").unlink(), "was not finished"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest can't be read"),
        (lambda f: (f / "model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"we"), "has 2 bytes, not 472"),
        (lambda f: save_file({"weight": torch.zeros(100)}, f / "model.safetensors"), "checksum"),
    ],
)
def test_a_torn_one_is_noticed_and_the_one_before_is_used(run, tear, reason):
    tear(run / "checkpoint-100")
    assert reason in find_damage(run / "checkpoint-100")
    assert find_last_whole(run).name == "checkpoint-10"


def test_old_ones_go_only_beyond_the_limit(run):
    rotate(run, 2)
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    rotate(run, None)
    assert len(list(run.iterdir())) == 2
    assert json.loads((run / "checkpoint-10" / "manifest.json").read_text())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_passed_over(run, messages, bad):
    save_file({"good": torch.ones(3), "bad": torch.tensor([1.0, bad])}, run / "checkpoint-100" / "model.safetensors")
    write_manifest(run / "checkpoint-100")
    assert find_last_whole(run).name == "checkpoint-10"
    assert "bad in model.safetensors is not finite" in messages.text


def test_the_best_one_is_kept_beside_the_newest(run):
    rotate(run, 1, [run / "checkpoint-5"])
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint-100", "checkpoint-5"]


def test_discarding_a_run_leaves_everything_else(run):
    for name in ("finished.json", "training_log.jsonl", "notes.txt"):
        (run / name).write_text("{}")
    for name in ("raw_weights", "adapter"):
        (run / name).mkdir()
    discard_run(run)
    assert [p.name for p in run.iterdir()] == ["notes.txt"]
