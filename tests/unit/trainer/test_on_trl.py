"""Conversations that TRL renders: what is typed in them is text, in every stage; pairs are lost aloud; experts are balanced."""

import math

import pytest
from datasets import Dataset
from tests.chats import ATTACK, count_special, turns
from tests.conftest import EXPERTS, build_tiny

from small_doge import DogeForCausalLM
from small_doge.processor.chat_encoding import encode_chat
from small_doge.processor.tokenizer import build_generation_config
from small_doge.trainer import on_trl
from small_doge.trainer.arguments import DataArguments
from small_doge.utils.errors import UserError


COMMON = {"per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "max_steps": 1, "warmup_steps": 0}
PROMPT = turns(ATTACK)


@pytest.fixture
def model(tiny_tokenizer):
    model = build_tiny(vocab_size=len(tiny_tokenizer), keep_window_size=32, max_position_embeddings=128)
    model.generation_config = build_generation_config(tiny_tokenizer)
    return model


@pytest.fixture
def align(model, tiny_tokenizer, tmp_path):
    from small_doge.trainer.doge.dpo import DogeDPOTrainer, DPOArguments

    def call(rows, **settings):
        settings = {"precompute_ref_log_probs": False, "max_length": 256, **COMMON, **settings}
        return DogeDPOTrainer(
            model=model,
            args=DPOArguments(output_dir=str(tmp_path), **settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=tiny_tokenizer,
            settings={},
        )

    model.config.name_or_path = str(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    return call


def pair(prompt):
    return {"prompt": turns(prompt), "chosen": turns("", f"Yes {ATTACK}")[1:], "rejected": turns("", "No")[1:]}


def test_preferences_hold_the_control_tokens_of_the_template_alone(align, tiny_tokenizer):
    (row,) = align([pair(ATTACK)]).train_dataset
    assert row["prompt_ids"] == encode_chat(tiny_tokenizer, PROMPT, add_generation_prompt=True).ids
    assert count_special(tiny_tokenizer, row["prompt_ids"]) == 6
    assert [count_special(tiny_tokenizer, row[name]) for name in ("chosen_ids", "rejected_ids")] == [1, 1]


def test_prompts_of_reinforcement_hold_the_control_tokens_of_the_template_alone(model, tiny_tokenizer, tmp_path):
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments

    trainer = DogeGRPOTrainer(
        model=model,
        args=GRPOArguments(output_dir=str(tmp_path), num_generations=2, max_completion_length=4, **COMMON),
        train_dataset=Dataset.from_list([{"prompt": PROMPT, "solution": "1"}] * 2),
        processing_class=tiny_tokenizer,
        reward_funcs=[lambda completions, **columns: [0.0] * len(completions)],
        settings={},
    )
    expected = encode_chat(tiny_tokenizer, PROMPT, add_generation_prompt=True).ids
    assert trainer._tokenize_prompts([PROMPT, turns("Hi")])[0][0] == expected


def test_references_that_can_not_be_verified_are_an_error_before_the_first_step(model, tiny_tokenizer, tmp_path):
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments
    from small_doge.trainer.rewards import make_accuracy_reward

    rows = Dataset.from_list([{"prompt": PROMPT, "solution": solution} for solution in ("1", "3:30")])
    with pytest.raises(ValueError, match=r"train_dataset: 1 of 2 rows .* such as '3:30'"):
        DogeGRPOTrainer(
            model=model,
            args=GRPOArguments(output_dir=str(tmp_path), num_generations=2, max_completion_length=4, **COMMON),
            train_dataset=rows,
            processing_class=tiny_tokenizer,
            reward_funcs=[make_accuracy_reward()],
            settings={},
        )


def test_prompts_of_distillation_hold_the_control_tokens_of_the_template_alone(model, tiny_tokenizer, tmp_path):
    from small_doge.trainer.teacher import DistillationArguments, DogeDistillationTrainer

    trainer = DogeDistillationTrainer(
        model=model,
        teacher_model=build_tiny(vocab_size=len(tiny_tokenizer)),
        args=DistillationArguments(output_dir=str(tmp_path), max_completion_length=4, **COMMON),
        train_dataset=Dataset.from_list([{"prompt": PROMPT}] * 2),
        processing_class=tiny_tokenizer,
        settings={},
    )
    expected = encode_chat(tiny_tokenizer, PROMPT, add_generation_prompt=True).ids
    assert trainer._tokenize_prompts([PROMPT, turns("Hi")])[0][0] == expected


def test_pairs_that_are_too_long_are_counted_and_an_empty_set_is_an_error(align, messages):
    assert len(align([pair("a"), pair("word " * 100)], max_length=48).train_dataset) == 1
    assert "1 of 2 pairs (train) have prompts of max_length=48 tokens or more" in messages.text
    with pytest.raises(ValueError, match="2 of 2 pairs .* none is left. Raise max_length"):
        align([pair("word " * 100)] * 2, max_length=48)


def test_rows_have_one_default_length_in_the_data_and_in_trl():
    from small_doge.trainer.doge.dpo import DPOArguments

    assert DPOArguments(output_dir="x", report_to="none", use_cpu=True).max_length == DataArguments().max_length


@pytest.fixture
def experts(tiny_tokenizer, tmp_path):
    """A folder as `upcycle` once wrote it, whose configuration asks for router logits."""
    model = build_tiny(vocab_size=len(tiny_tokenizer), keep_window_size=32, output_router_logits=True, **EXPERTS)
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(tmp_path / "experts")
    return tmp_path / "experts"


@pytest.fixture
def balanced(monkeypatch):
    """What the balance loss is given: for each step, which layers' logits have a gradient."""
    given, compute = [], on_trl.compute_load_balancing_loss

    def spy(logits, *args):
        given.append([layer.requires_grad for layer in logits])
        return compute(logits, *args)

    monkeypatch.setattr(on_trl, "compute_load_balancing_loss", spy)
    return given


@pytest.fixture
def prefer(experts, tiny_tokenizer, tmp_path):
    """Train a model with experts on preferences for a step; returns its loss."""
    from small_doge.trainer.doge.dpo import DogeDPOTrainer, DPOArguments

    def call(wrap=lambda model: model, **settings):
        settings = {"precompute_ref_log_probs": False, "max_length": 256, "logging_steps": 1, **COMMON, **settings}
        trainer = DogeDPOTrainer(
            model=wrap(DogeForCausalLM.from_pretrained(experts)),
            args=DPOArguments(output_dir=str(tmp_path), **settings),
            train_dataset=Dataset.from_list([pair("a"), pair("b")]),
            processing_class=tiny_tokenizer,
            settings={},
        )
        trainer.train()
        return trainer.state.log_history[0]["loss"]

    return call


@pytest.mark.parametrize("precompute", [True, False])
def test_a_model_that_asks_for_router_logits_learns_preferences(prefer, balanced, precompute):
    loss = prefer(precompute_ref_log_probs=precompute, router_aux_loss_coef=0.001)
    assert 0.0005 < loss - math.log(2) < 0.003  # nothing is preferred yet, so the reference has the same probabilities
    assert balanced == [[True, True]]


def test_a_model_that_asks_for_router_logits_is_reinforced_beside_its_reference(
    experts, balanced, tiny_tokenizer, tmp_path
):
    from small_doge.trainer.doge.grpo import DogeGRPOTrainer, GRPOArguments

    settings = {"num_generations": 2, "max_completion_length": 4, "beta": 0.1, "logging_steps": 1, **COMMON}
    trainer = DogeGRPOTrainer(
        model=DogeForCausalLM.from_pretrained(experts),
        args=GRPOArguments(output_dir=str(tmp_path), **settings),
        train_dataset=Dataset.from_list([{"prompt": turns("Hi"), "solution": "1"}] * 2),
        processing_class=tiny_tokenizer,
        reward_funcs=[lambda completions, **columns: [0.0] * len(completions)],
        settings={},
    )
    trainer.train()
    assert isinstance(trainer.ref_model, DogeForCausalLM) and balanced == [[True, True]]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_reference_of_an_adapter_is_not_balanced(prefer, balanced, checkpointing):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "router_gate"], task_type="CAUSAL_LM")
    prefer(lambda model: peft.get_peft_model(model, config), activation_checkpointing=checkpointing)
    assert balanced == [[True, True]]


def test_the_weight_of_the_balance_is_the_settings_own(prefer, align):
    assert prefer(router_aux_loss_coef=2.0) - prefer(router_aux_loss_coef=0.0) == pytest.approx(2, abs=0.5)
    with pytest.raises(UserError, match="router_aux_loss_coef=2.0 needs a model with experts"):
        align([pair("a")], router_aux_loss_coef=2.0)
