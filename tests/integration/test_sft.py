"""Fine-tuning through the real command line, on a base model made for it."""

import json

import pytest
from tests.integration.conftest import COMPARABLE, assert_a_stopped_run_ends_alike, assert_runs_agree
from transformers import AutoModelForCausalLM, AutoTokenizer

from small_doge.trainer.callbacks import read_log


CHATS = [{"embedded:chat:300": 1.0}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("sft")


@pytest.fixture
def tune(train_stage):
    """Fine-tune the base model."""

    def call(output, **changes):
        return train_stage("sft", output, **{"datasets_and_ratios": CHATS, "packing": True, **changes})

    return call


@pytest.fixture
def unbroken(shared, tune):
    if not (shared / "tuned" / "finished.json").exists():
        tune(shared / "tuned")
    return shared / "tuned"


def test_a_tuned_model_is_complete_and_stops_at_the_end_of_a_turn(unbroken):
    rows = [row for row in read_log(unbroken / "training_log.jsonl") if "loss" in row]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert "Supervised fine-tuning" in (unbroken / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(unbroken)
    generation = json.loads((unbroken / "generation_config.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in generation["eos_token_id"]
    assert AutoModelForCausalLM.from_pretrained(unbroken).config.vocab_size >= len(tokenizer)


def test_a_stopped_run_ends_with_the_same_weights(unbroken, tune, tmp_path):
    assert_a_stopped_run_ends_alike(unbroken, tune, tmp_path / "stopped")


def test_one_by_eight_equals_eight_by_one(train, tmp_path):
    """Though rows differ in how many of their tokens are learnt."""
    settings = {
        **COMPARABLE,
        "stage": "sft",
        "datasets_and_ratios": CHATS,
        "eval_strategy": "no",
        "test_size": 0,
    }
    train(tmp_path / "wide", per_device_train_batch_size=8, gradient_accumulation_steps=1, **settings)
    train(tmp_path / "deep", per_device_train_batch_size=1, gradient_accumulation_steps=8, **settings)
    assert_runs_agree(tmp_path / "wide", tmp_path / "deep")


def test_traces_are_distilled_with_the_tags_of_the_recipe(tune, tmp_path):
    path = tmp_path / "traces.jsonl"
    rows = ({"question": f"{i} + 1?", "rationale": "I add.", "final": str(i + 1)} for i in range(200))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "distilled"
    tune(
        out,
        datasets_and_ratios=[{str(path): 1.0}],
        apply_thinking_template=True,
        thinking_tags=["<a>", "</a>"],
        max_steps=2,
    )
    assert "Distillation" in (out / "README.md").read_text()
