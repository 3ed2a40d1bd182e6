"""Losses of TRL's own trainers, called directly on the same data."""

import pytest
import torch
from tests.conftest import EXPERTS, build_tiny
from transformers import TrainingArguments

from small_doge import DogeForCausalLM
from small_doge.processor.ft_datasets_process import mix_datasets_by_ratio
from small_doge.processor.packing import PackedCollator
from small_doge.processor.tokenizer import build_generation_config
from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.base import DogeTrainer


trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")

# Plain gradient descent, since Adam makes whole steps of the rounding by which two implementations differ.
COMMON = {
    "per_device_train_batch_size": 4,
    "max_steps": 5,
    "optim": "sgd",
    "learning_rate": 0.5,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "seed": 7,
    "disable_tqdm": True,
}


def losses(trainer):
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("packing", [False, True])
def test_fine_tuning_has_the_losses_of_trls_trainer(tiny_tokenizer, tmp_path, packing):
    rows = mix_datasets_by_ratio(
        [{"embedded:chat:200": 1.0}],
        processing_class=tiny_tokenizer,
        max_length=64,
        packing=packing,
        total_sample_size=24,
        cache_dir=str(tmp_path / "data"),
    )["train"]
    torch.manual_seed(0)
    ours = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0)
    theirs = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0)
    theirs.load_state_dict(ours.state_dict())
    theirs.config.name_or_path = "tiny"
    theirs.config.router_aux_loss_coef = 0.0
    trainer = DogeTrainer(
        model=ours,
        args=StageArguments(output_dir=str(tmp_path / "ours"), warmup_steps=0, **COMMON),
        train_dataset=rows,
        data_collator=PackedCollator(),
        processing_class=tiny_tokenizer,
        settings={},
    )
    config = trl.SFTConfig(
        output_dir=str(tmp_path / "theirs"),
        max_length=None,
        padding_free=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{**COMMON, "bf16": False, "weight_decay": 0.0, "gradient_checkpointing": False, "shuffle_dataset": False},
    )
    columns = ["input_ids", "labels", "seq_lengths"]
    peer = trl.SFTTrainer(
        model=theirs, args=config, train_dataset=rows.select_columns(columns), processing_class=tiny_tokenizer
    )
    assert isinstance(peer.args, TrainingArguments)
    assert losses(trainer) == pytest.approx(losses(peer), rel=2e-4)


@pytest.mark.parametrize(("precompute", "dropout"), [(True, 0.0), (False, 0.0), (True, 0.2)])
def test_preference_optimisation_has_the_losses_of_trls_trainer(tiny_tokenizer, tmp_path, precompute, dropout):
    """Dropout that the configuration asks for is off: the reference has none."""
    from datasets import Dataset

    from small_doge.trainer.doge.dpo import DogeDPOTrainer, DPOArguments

    rows = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
                "chosen": [{"role": "assistant", "content": f"It is {i + 1}."}],
                "rejected": [{"role": "assistant", "content": "Go away!"}],
            }
            for i in range(24)
        ]
    )
    build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=dropout).save_pretrained(tmp_path / "model")
    common = {**COMMON, "max_length": 64, "precompute_ref_log_probs": precompute, "weight_decay": 0.0}

    def load(**changes):
        return DogeForCausalLM.from_pretrained(tmp_path / "model", **changes)

    ours = DogeDPOTrainer(
        model=load(),
        args=DPOArguments(output_dir=str(tmp_path / "ours"), warmup_steps=0, **common),
        train_dataset=rows,
        processing_class=tiny_tokenizer,
        settings={},
    )
    theirs = trl.DPOTrainer(
        model=load(hidden_dropout=0.0),
        ref_model=None if precompute else load(hidden_dropout=0.0),  # TRL would read the class of `transformers`
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "theirs"), bf16=False, gradient_checkpointing=False, data_seed=7, **common
        ),
        train_dataset=rows,
        processing_class=tiny_tokenizer,
    )
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-5)


def test_experts_are_balanced_by_our_loss_beside_trls(tiny_tokenizer, tmp_path):
    from datasets import Dataset

    from small_doge.trainer.doge.dpo import DogeDPOTrainer, DPOArguments

    rows = Dataset.from_list([{"prompt": f"What is {i}?", "chosen": "Good.", "rejected": "Bad!"} for i in range(8)])
    model = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0, router_aux_loss_coef=0.0, **EXPERTS)
    plain = {**COMMON, "max_steps": 1, "max_length": 64, "precompute_ref_log_probs": False}
    found = {}
    for weight in (0.0, 0.5):
        model.config.router_aux_loss_coef = weight
        model.config.name_or_path = str(tmp_path / "model")
        model.save_pretrained(tmp_path / "model")
        trainer = DogeDPOTrainer(
            model=DogeForCausalLM.from_pretrained(tmp_path / "model"),
            args=DPOArguments(output_dir=str(tmp_path / str(weight)), warmup_steps=0, **plain),
            train_dataset=rows,
            processing_class=tiny_tokenizer,
            settings={},
        )
        (found[weight],) = losses(trainer)
    assert 0.3 < found[0.5] - found[0.0] < 5  # the balance loss is 1 when experts share equally


PROBLEMS = [
    {"prompt": [{"role": "user", "content": f"What is {i} + {i + 1}?"}], "solution": str(2 * i + 1)} for i in range(16)
]
GENERATING = {**COMMON, "max_steps": 2, "per_device_train_batch_size": 8, "max_completion_length": 12}


def count_letters(completions, **columns):
    """A reward that an untrained model gets sometimes."""
    return [float(len(completion[0]["content"]) % 7) for completion in completions]


def run_both(tmp_path, tiny_tokenizer, ours, theirs, changes=None):
    """Logs and weights of two trainers from the same weights."""
    from datasets import Dataset

    torch.manual_seed(3)
    model = build_tiny(vocab_size=len(tiny_tokenizer), hidden_dropout=0.0, keep_window_size=32, **(changes or {}))
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    found = []
    for build in (ours, theirs):
        trainer = build(DogeForCausalLM.from_pretrained(tmp_path / "model"), Dataset.from_list(PROBLEMS))
        trainer.train()
        rows = [row for row in trainer.state.log_history if "loss" in row]
        found.append((rows, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
    return found


def assert_alike(found, names):
    (ours, weights), (theirs, their_weights) = found
    for name in names:
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-5, abs=1e-7), name
    for name, weight in weights.items():
        torch.testing.assert_close(weight, their_weights[name], rtol=1e-5, atol=1e-6)


def test_reinforcement_has_the_steps_of_trls_trainer(tiny_tokenizer, tmp_path):
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments

    common = {**GENERATING, "num_generations": 4, "weight_decay": 0.0}
    found = run_both(
        tmp_path,
        tiny_tokenizer,
        lambda model, rows: DogeGRPOTrainer(
            model=model,
            args=GRPOArguments(output_dir=str(tmp_path / "ours"), warmup_steps=0, **common),
            train_dataset=rows,
            processing_class=tiny_tokenizer,
            reward_funcs=[count_letters],
            settings={},
        ),
        lambda model, rows: trl.GRPOTrainer(
            model=model,
            args=trl.GRPOConfig(
                output_dir=str(tmp_path / "theirs"), bf16=False, gradient_checkpointing=False, data_seed=7, **common
            ),
            train_dataset=rows,
            processing_class=tiny_tokenizer,
            reward_funcs=[count_letters],
        ),
    )
    assert_alike(found, ("loss", "reward", "grad_norm"))
    assert found[0][0][0]["grad_norm"] > 0


def test_distillation_has_the_steps_of_trls_trainer(tiny_tokenizer, tmp_path):
    from small_doge.trainer.teacher import DistillationArguments, DogeDistillationTrainer

    torch.manual_seed(9)
    teacher = build_tiny(vocab_size=len(tiny_tokenizer), hidden_size=64, keep_window_size=32)
    common = {**GENERATING, "weight_decay": 0.0}
    found = run_both(
        tmp_path,
        tiny_tokenizer,
        lambda model, rows: DogeDistillationTrainer(
            model=model,
            teacher_model=teacher,
            args=DistillationArguments(output_dir=str(tmp_path / "ours"), warmup_steps=0, **common),
            train_dataset=rows.select_columns("prompt"),
            processing_class=tiny_tokenizer,
            settings={},
        ),
        lambda model, rows: trl.DistillationTrainer(
            model=model,
            teacher_model=teacher,
            args=trl.DistillationConfig(
                output_dir=str(tmp_path / "theirs"), bf16=False, gradient_checkpointing=False, data_seed=7, **common
            ),
            train_dataset=rows.select_columns("prompt"),
            processing_class=tiny_tokenizer,
        ),
    )
    assert_alike(found, ("loss", "grad_norm"))


def test_rollouts_use_the_bounded_cache(tiny_tokenizer, tmp_path, monkeypatch):
    from small_doge.models.cache import DynamicMaskCache
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments

    made = []
    build = DynamicMaskCache.__init__
    monkeypatch.setattr(
        DynamicMaskCache, "__init__", lambda self, config: (made.append(config), build(self, config))[1]
    )
    run_both(
        tmp_path,
        tiny_tokenizer,
        *[
            lambda model, rows: DogeGRPOTrainer(
                model=model,
                args=GRPOArguments(
                    output_dir=str(tmp_path / "out"), num_generations=4, **{**GENERATING, "max_steps": 1}
                ),
                train_dataset=rows,
                processing_class=tiny_tokenizer,
                reward_funcs=[count_letters],
                settings={},
            )
        ]
        * 2,
    )
    assert len(made) == 2


def test_experts_are_balanced_while_answers_are_reinforced(tiny_tokenizer, tmp_path):
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments

    losses = []
    for weight in (0.0, 0.5):
        found = run_both(
            tmp_path / str(weight),
            tiny_tokenizer,
            *[
                lambda model, rows: DogeGRPOTrainer(
                    model=model,
                    args=GRPOArguments(
                        output_dir=str(tmp_path / "out"),
                        num_generations=4,
                        gradient_accumulation_steps=2,
                        **{**GENERATING, "max_steps": 1, "per_device_train_batch_size": 4},
                    ),
                    train_dataset=rows,
                    processing_class=tiny_tokenizer,
                    reward_funcs=[count_letters],
                    settings={},
                )
            ]
            * 2,
            changes={**EXPERTS, "router_aux_loss_coef": weight},
        )
        losses.append(found[0][0][0]["loss"])
    assert 0.3 < losses[1] - losses[0] < 5
