"""What every stage's trainer does around the loop of transformers."""

import pytest
import torch
from datasets import Dataset
from tests.conftest import EXPERTS, build_tiny

from small_doge.processor.packing import PackedCollator
from small_doge.trainer import finishing
from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.base import DogeTrainer
from small_doge.utils.errors import DivergedError, UserError


@pytest.fixture
def make_trainer(tmp_path, tiny_tokenizer):
    def make(model=None, **settings):
        defaults = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "save_strategy": "no", "logging_steps": 1}
        args = StageArguments(
            output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", **{**defaults, **settings}
        )
        rows = Dataset.from_list([{"input_ids": [3, 4, 5 + i], "seq_lengths": [3]} for i in range(32)])
        return DogeTrainer(
            model=model or build_tiny(vocab_size=512),
            args=args,
            train_dataset=rows,
            processing_class=tiny_tokenizer,
            data_collator=PackedCollator(),
            settings={},
        )

    return make


def test_a_second_attempt_with_a_smaller_batch_has_a_schedule_of_its_own(make_trainer, monkeypatch):
    """`auto_find_batch_size` begins again after a batch that did not fit."""
    trainer = make_trainer(num_train_epochs=1, auto_find_batch_size=True, warmup_steps=0, decay_steps=0.25)
    steps, real = [], DogeTrainer.training_step

    def fail_once(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 3:  # after the rate has moved
            raise RuntimeError("CUDA out of memory.")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(DogeTrainer, "training_step", fail_once)
    trainer.train()
    schedule, total = trainer.schedule, trainer.state.max_steps
    assert schedule.warmup_steps + schedule.stable_steps + schedule.decay_steps == total > 4
    rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert rates[0] == max(rates) == 1e-3 and len([rate for rate in rates if rate == 1e-3]) >= total // 2


def test_training_again_begins_a_new_schedule(make_trainer):
    trainer = make_trainer(max_steps=2)
    trainer.train()
    first = trainer.schedule
    trainer.train()
    assert trainer.schedule is not first and trainer.lr_scheduler.last_epoch == 2


def test_numbers_that_are_not_finite_are_never_saved_as_the_result_of_an_adapter_either(
    make_trainer, tmp_path, tiny_tokenizer
):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        build_tiny(vocab_size=512), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    trainer = make_trainer(model, max_steps=1)
    trainer.train()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(DivergedError):
        finishing.save_finished(trainer, tiny_tokenizer, tmp_path / "out", {}, {}, "a stage")
    assert not (tmp_path / "out" / "finished.json").exists()


@pytest.fixture
def build_experts():
    def build(weight, **changes):
        torch.manual_seed(0)
        return build_tiny(vocab_size=512, router_aux_loss_coef=weight, **EXPERTS, **changes)

    return build


def test_experts_are_balanced_in_training_whatever_the_configuration_says(make_trainer, build_experts):
    routers = []
    for weight, asked, checkpointing in (
        (0.0, True, False),
        (9.0, False, False),
        (9.0, True, False),
        (9.0, False, True),
    ):
        trainer = make_trainer(
            build_experts(weight, output_router_logits=asked), max_steps=2, activation_checkpointing=checkpointing
        )
        trainer.train()
        routers.append(trainer.model.model.layers[0].mlp.router_gate.weight.detach())
    unbalanced, balanced, asked_for, checkpointed = routers
    assert not torch.allclose(unbalanced, balanced, atol=1e-5)
    assert torch.equal(balanced, asked_for) and torch.allclose(balanced, checkpointed, atol=1e-6)


def test_the_held_out_loss_is_that_of_the_tokens_alone_however_many_rows_a_batch_has(make_trainer, build_experts):
    rows = Dataset.from_list([{"input_ids": list(range(3, 6 + i)), "seq_lengths": [3 + i]} for i in range(8)])
    losses = []
    for weight, batch in ((0.0, 8), (9.0, 8), (9.0, 3)):
        trainer = make_trainer(build_experts(weight, output_router_logits=True), per_device_eval_batch_size=batch)
        losses.append(trainer.evaluate(rows)["eval_loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            "use_reentrant=true would leave the experts unbalanced; set it to false",
        ),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 would leave the experts unbalanced"),
    ],
)
def test_what_leaves_the_experts_unbalanced_is_refused(make_trainer, build_experts, settings, message):
    with pytest.raises(UserError, match=message):
        make_trainer(build_experts(0.1), **settings)
    make_trainer(**settings)
