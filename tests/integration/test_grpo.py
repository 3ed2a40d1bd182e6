"""GRPO and distillation through the real command line, on a fine-tuned model made for them."""

import json

import pytest
from tests.integration.conftest import assert_a_stopped_run_ends_alike

from small_doge.trainer.callbacks import read_log


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("grpo")


@pytest.fixture
def tune(shared, train_stage):
    """Run a stage on a model that has seen chats."""
    if not (shared / "base" / "finished.json").exists():
        chats = {"datasets_and_ratios": [{"embedded:chat:200": 1.0}], "packing": True, "eval_strategy": "no"}
        train_stage("sft", shared / "base", **chats)

    def call(output, stage="grpo", **changes):
        settings = {
            "model_name_or_path": str(shared / "base"),
            "datasets_and_ratios": [{"embedded:problem:200": 1.0}],
            "total_sample_size": 64,
            "test_size": 4,
            "max_steps": 5,
            "eval_steps": 4,
            "max_completion_length": 32,
            "learning_rate": 1e-3,
            **changes,
        }
        if stage == "grpo":
            settings = {"num_generations": 4, "reward_funcs": ["format", "repetition"], **settings}
        return train_stage(stage, output, **settings)

    return call


@pytest.fixture
def unbroken(shared, tune):
    if not (shared / "reinforced" / "finished.json").exists():
        done = tune(shared / "reinforced", reward_funcs=["accuracy", "repetition", "length"])
        (shared / "said.txt").write_text(done.stderr)
    return shared / "reinforced"


def test_a_reinforced_model_is_a_complete_folder_that_tells_of_its_groups(unbroken, shared):
    facts = json.loads((unbroken / "finished.json").read_text())
    assert facts["stage"] == "Group relative policy optimisation" and "held-out reward" in facts
    assert int(facts["tokens"].replace(",", "")) > 0
    rows = [row for row in read_log(unbroken / "training_log.jsonl") if "reward" in row]
    assert len(rows) == 5 and {"groups/equal_rewards", "groups/cut_off", "rewards/accuracy_reward/mean"} <= set(
        rows[0]
    )
    said = (shared / "said.txt").read_text()
    assert "of 10 groups of completions" in said
    assert any(row["grad_norm"] > 0 for row in rows), "the other tests would compare weights that nothing changed"
    assert not [path for path in unbroken.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_a_stopped_run_ends_with_the_same_weights(unbroken, tune, tmp_path):
    assert_a_stopped_run_ends_alike(
        unbroken, lambda out: tune(out, reward_funcs=["accuracy", "repetition", "length"]), tmp_path / "stopped"
    )


def test_bad_input_is_told_before_the_run(tune, shared, tmp_path):
    questions = tmp_path / "unverifiable.jsonl"
    questions.write_text("".join(json.dumps({"question": f"Why {i}?", "answer": "because"}) + "\n" for i in range(20)))
    cases = [
        ({"reward_funcs": ["acuracy"]}, "acuracy"),
        ({"reward_weights": [1.0]}, "reward_weights=[1.0]: 2 rewards are named"),
        ({"datasets_and_ratios": [{str(questions): 1.0}]}, "states no number or formula"),
    ]
    for changes, message in cases:
        done = tune(tmp_path / "out", check=False, **changes)
        assert done.returncode == 1 and message in done.stderr, done.stderr


def test_a_live_teacher_is_learnt_from(shared, tune, tmp_path):
    settings = {"stage": "distill", "teacher_model_name_or_path": str(shared / "base"), "learning_rate": 5e-3}
    tune(tmp_path / "taught", model_name_or_path=str(make_student(shared, tmp_path)), max_steps=12, **settings)
    rows = [row["loss"] for row in read_log(tmp_path / "taught" / "training_log.jsonl") if "loss" in row]
    assert sum(rows[-3:]) < 0.7 * sum(rows[:3])
    facts = json.loads((tmp_path / "taught" / "finished.json").read_text())
    assert facts["stage"] == "Distillation from a live teacher"


def make_student(shared, tmp_path):
    """The same shape with weights of its own."""
    from transformers import AutoConfig, AutoTokenizer

    from small_doge import DogeForCausalLM

    folder = tmp_path / "student"
    DogeForCausalLM(AutoConfig.from_pretrained(shared / "base")).save_pretrained(folder)
    AutoTokenizer.from_pretrained(shared / "base").save_pretrained(folder)
    return folder


def test_written_traces_are_distilled_without_a_teacher(tune, tmp_path):
    done = tune(tmp_path / "traces", stage="distill", max_completion_length=None, check=False)
    assert done.returncode == 1 and "max_completion_length" in done.stderr  # a setting of the live teacher alone
