"""What makes a checkpoint one of this run."""

import json

import pytest

from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.identity import IDENTITY, check_identity, name_optimizer, write_identity
from small_doge.utils.errors import UserError


FACTS = {
    "stage": {"stage": "Pre-training"},
    "model": {"hidden_size": 32},
    "data": {"max_length": 64, "content": "abc"},
    "order": {"seed": 1},
    "optimizer": {"optim": "adamw_torch", "lr_scheduler_type": "warmup_stable_decay"},
}


def change(group, **values):
    return {**FACTS, group: {**FACTS.get(group, {}), **values}}


def test_the_same_run_is_gone_on_with(tmp_path):
    check_identity(tmp_path, FACTS)  # a checkpoint of an older version says nothing
    write_identity(tmp_path, FACTS)
    check_identity(tmp_path, json.loads(json.dumps(FACTS)))
    check_identity(tmp_path, change("data", new_setting=5))  # which the older version did not have


def test_an_optimizer_that_an_older_version_did_not_name_is_not_muon(tmp_path):
    write_identity(tmp_path, {name: facts for name, facts in FACTS.items() if name != "optimizer"})
    check_identity(tmp_path, change("optimizer", optim="adafactor"))
    with pytest.raises(UserError, match='optim: "adamw_torch" before, "muon" now'):
        check_identity(tmp_path, change("optimizer", optim="muon"))


def test_a_schedule_that_an_older_version_did_not_name_is_taken(tmp_path):
    write_identity(tmp_path, {**FACTS, "optimizer": {"optim": "adamw_torch"}})
    check_identity(tmp_path, change("optimizer", lr_scheduler_type="cosine"))


@pytest.mark.parametrize(
    ("optim", "name"),
    [
        ("adamw_torch", "adamw_torch"),
        ("adamw_torch_fused", "adamw_torch"),
        ("adafactor", "adafactor"),
        ("muon", "muon"),
    ],
)
def test_optimizers_that_keep_the_same_state_have_one_name(tmp_path, optim, name):
    args = StageArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", optim=optim)
    assert name_optimizer(args) == name


def test_a_packing_that_an_older_version_wrote_as_a_switch_is_the_same(tmp_path):
    write_identity(tmp_path, change("data", packing=True))
    check_identity(tmp_path, change("data", packing="best_fit"))
    with pytest.raises(UserError, match='packing: "best_fit" before, "none" now'):
        check_identity(tmp_path, change("data", packing="none"))


def test_packing_does_not_count_where_nothing_is_packed(tmp_path):
    write_identity(tmp_path, change("data", packing=True))
    check_identity(tmp_path, change("data", packing="none", row_format="preference"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (change("stage", stage="Distillation"), 'stage: "Pre-training" before, "Distillation" now'),
        (change("model", hidden_size=64), "hidden_size: 32 before, 64 now"),
        (change("model", num_experts=4), "num_experts: not set before, 4 now"),
        (change("data", content="abd"), 'content: "abc" before, "abd" now'),
        (change("order", seed=2), "seed: 1 before, 2 now"),
        (change("adapter", lora_r=8), "lora_r: not set before, 8 now"),
        (change("optimizer", optim="adafactor"), 'optim: "adamw_torch" before, "adafactor" now'),
        (change("optimizer", optim="muon"), 'optim: "adamw_torch" before, "muon" now'),
        (change("optimizer", lr_scheduler_type="cosine"), '"warmup_stable_decay" before, "cosine" now'),
    ],
)
def test_a_difference_is_named_with_the_ways_on(tmp_path, facts, message):
    write_identity(tmp_path, FACTS)
    with pytest.raises(UserError, match="belongs to another run") as error:
        check_identity(tmp_path, facts)
    assert message in str(error.value) and "overwrite" in str(error.value)
    assert (tmp_path / IDENTITY).is_file()
