"""What callbacks do around a checkpoint: order, limit, and whose rates a resumed run has."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerControl, TrainerState

from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.saving import CheckpointCallback, OwnRatesCallback, SaveBeforeEvaluationCallback
from small_doge.utils.files import find_damage
from small_doge.utils.scheduler import WSDScheduler


@pytest.fixture
def context(tmp_path):
    args = StageArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", save_total_limit=2)
    return args, TrainerState(global_step=1), TrainerControl()


def save(callback, context, tmp_path, *steps):
    args, state, control = context
    for state.global_step in steps:
        (tmp_path / f"checkpoint-{state.global_step}").mkdir()
        callback.on_save(args, state, control)


def test_the_limit_counts_once_the_newest_is_whole_and_is_given_back(context, tmp_path):
    args, state, control = context
    callback = CheckpointCallback({"seed": 1}, {"stage": {}})
    callback.on_train_begin(args, state, control)
    assert args.save_total_limit is None  # the trainer deletes nothing itself
    save(callback, context, tmp_path, 1, 2, 3)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert find_damage(tmp_path / "checkpoint-3") is None
    names = {path.name for path in (tmp_path / "checkpoint-3").iterdir()}
    assert names == {"recipe.yaml", "run.json", "machine.json", "manifest.json"}
    callback.on_train_end(args, state, control)
    assert args.save_total_limit == 2


@pytest.mark.parametrize(
    ("warmup", "stable", "step", "said"), [(0, 0, 0, True), (1, 2, 0, False), (1, 2, 3, False), (1, 2, 4, True)]
)
def test_a_stable_checkpoint_that_comes_too_late_is_told(context, messages, warmup, stable, step, said):
    args, state, control = context
    args.keep_stable_checkpoint, state.global_step = True, step
    schedule = WSDScheduler(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), warmup, stable, 5)
    CheckpointCallback({}).on_train_begin(args, state, control, lr_scheduler=schedule)
    assert any("keep_stable_checkpoint=true keeps none" in line for line in messages.lines) == said


def test_of_a_run_that_keeps_one_checkpoint_the_best_stays(context, tmp_path):
    args, state, control = context
    args.save_total_limit, args.load_best_model_at_end = 1, True
    callback = CheckpointCallback({})
    callback.on_train_begin(args, state, control)
    state.best_model_checkpoint = str(tmp_path / "checkpoint-1")
    save(callback, context, tmp_path, 1, 2, 3)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]
    callback.on_train_end(args, state, control)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def build(kind, peak):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=peak, weight_decay=peak)
    if kind == "wsd":
        return optimizer, WSDScheduler(optimizer, 2, 4, 4)
    return optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


@pytest.mark.parametrize("kind", ["wsd", "lambda"])
def test_a_resumed_run_has_the_rates_and_settings_of_its_own_recipe(context, kind):
    before, schedule = build(kind, 0.5)
    expected, own_schedule = build(kind, 0.25)
    for _ in range(7):
        for optimizer, scheduler in ((before, schedule), (expected, own_schedule)):
            optimizer.step()
            scheduler.step()
    optimizer, scheduler = build(kind, 0.25)
    callback = OwnRatesCallback()
    callback.remember(optimizer, scheduler)
    optimizer.load_state_dict(before.state_dict())
    scheduler.load_state_dict(schedule.state_dict())
    callback.on_train_begin(*context, optimizer=optimizer, lr_scheduler=scheduler)
    assert scheduler.last_epoch == 7
    assert scheduler.get_last_lr() == own_schedule.get_last_lr() != schedule.get_last_lr()
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (own_schedule.get_last_lr()[0], 0.25)
    for one, two in ((optimizer, scheduler), (expected, own_schedule)):
        one.step()
        two.step()
    assert scheduler.get_last_lr() == own_schedule.get_last_lr()


def test_a_due_evaluation_waits_for_the_checkpoint_unless_it_decides_on_it(context):
    args, state, control = context
    done = []
    callback = SaveBeforeEvaluationCallback(lambda: done.append(state.global_step))
    control.should_save = control.should_evaluate = True
    callback.on_step_end(args, state, control)
    assert not control.should_evaluate and not done
    callback.on_save(args, state, control)
    callback.on_save(args, state, control)
    assert done == [1]
    args.metric_for_best_model, control.should_evaluate = "loss", True
    callback.on_step_end(args, state, control)
    callback.on_save(args, state, control)
    assert control.should_evaluate and done == [1]
