"""What a GRPO run says of its groups and its rewards."""

import pytest

from small_doge.trainer.doge.grpo import (
    CUT_OFF,
    ZERO_VARIANCE,
    GRPOArguments,
    count_groups,
    judge_groups,
    judge_rewards,
)


@pytest.fixture
def args(tmp_path):
    return GRPOArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=16, num_generations=8, report_to="none", use_cpu=True
    )


def history(equal, cut_off=0.0, rows=10):
    return [{"step": 5 * (i + 1), "reward": 0.5, ZERO_VARIANCE: equal, CUT_OFF: cut_off} for i in range(rows)]


def test_groups_are_counted_over_the_whole_run(args):
    assert count_groups([{"step": 3, "loss": 1.0}, *history(0.25)], args) == {
        "all": 100,
        ZERO_VARIANCE: 25,
        CUT_OFF: 0,
    }
    assert count_groups([], args) == {}


def test_groups_that_teach_nothing_are_named_with_a_remedy(args):
    assert judge_groups(history(0.3), args) is None
    assert "too hard or too easy" in judge_groups(history(0.95), args)
    assert "Raise max_completion_length (now 256)" in judge_groups(history(0.95, cut_off=0.8), args)


def test_a_reward_that_does_not_rise_beyond_chance_is_said():
    rising = [{"reward": 0.1 + 0.02 * i + 0.01 * (i % 2)} for i in range(30)]
    flat = [{"reward": 0.3 + 0.05 * (-1) ** i} for i in range(30)]
    assert judge_rewards(rising) is None
    assert "learnt nothing" in judge_rewards(flat) and "learnt nothing" in judge_rewards(rising[::-1])
    assert judge_rewards(rising[:5]) is None


def test_a_step_must_hold_whole_groups(tmp_path):
    common = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}
    with pytest.raises(ValueError, match="must be a multiple of num_generations=4"):
        GRPOArguments(per_device_train_batch_size=6, num_generations=4, **common)
    with pytest.raises(ValueError, match="num_generations=1: at least 2"):
        GRPOArguments(num_generations=1, **common)


def test_completions_may_serve_more_steps_than_one(tmp_path, messages):
    common = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "num_generations": 8}
    GRPOArguments(per_device_train_batch_size=2, steps_per_generation=4, save_steps=8, **common)
    assert "generates anew" not in messages.text
    GRPOArguments(per_device_train_batch_size=2, steps_per_generation=4, save_steps=6, **common)
    assert "save_steps=6" in messages.text and "a multiple of 4" in messages.text
    with pytest.raises(
        ValueError, match="steps_per_generation=3 on 1 processes must be a multiple of num_generations=8"
    ):
        GRPOArguments(per_device_train_batch_size=2, steps_per_generation=3, **common)


@pytest.mark.parametrize("name", ["steps_per_generation", "generation_batch_size"])
def test_tokens_of_a_step_decide_what_is_generated_together(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}=16 beside tokens_per_step=4096"):
        GRPOArguments(output_dir=str(tmp_path), tokens_per_step=4096, report_to="none", use_cpu=True, **{name: 16})


def test_accumulation_that_follows_from_tokens_keeps_one_generation_a_step(args):
    args.set_accumulation(4)
    assert (args.gradient_accumulation_steps, args.steps_per_generation, args.generation_batch_size) == (4, 4, 64)
    assert args.groups_per_step == 8
    args.per_device_train_batch_size = 2
    with pytest.raises(ValueError, match="must be a multiple of num_generations=8"):
        args.set_accumulation(3)
