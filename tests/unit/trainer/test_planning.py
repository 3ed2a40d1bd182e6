"""Plans: told from settings, and from a probe that really ran."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY

from small_doge.models import DogeConfig, DogeForCausalLM
from small_doge.trainer import planning
from small_doge.trainer.arguments import ModelArguments
from small_doge.trainer.planning import count_steps, find_config, load_stage, make_plan
from small_doge.trainer.stages import guess_stage


ROOT = Path(__file__).parents[3]
SETTINGS = {
    "model_preset": "Doge-20M",
    "model_overrides": {**TINY, "vocab_size": 512},
    "tokenizer_name_or_path": "nowhere",
    "datasets_and_ratios": [{"embedded:world:300": 1.0}],
    "total_sample_size": 64,
    "max_length": 32,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 3,
    "output_dir": "out",
    "report_to": "none",
}


def write(folder, name="pretrain", **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return path


def test_the_stage_is_told_by_the_place_of_the_recipe():
    recipes = ROOT / "recipes"
    assert guess_stage(recipes / "tiny" / "grpo.yaml").name == "grpo"
    assert guess_stage(recipes / "doge" / "Doge-20M-Instruct" / "dpo" / "config_full.yaml").name == "dpo"
    assert guess_stage(recipes / "doge" / "Doge-20M" / "config_full.yaml").name == "pretrain"
    with pytest.raises(ValueError, match=r"grop.*grpo"):
        load_stage(recipes / "tiny" / "grpo.yaml", {}, "grop")


def test_a_plan_sums_up_rows_tokens_and_steps(tmp_path):
    plan = make_plan(write(tmp_path), {})
    assert (plan.stage, plan.rows_per_step, plan.tokens_per_step) == ("pretrain", 8, 256)
    assert plan.steps == 24 and plan.tokens == 24 * 256
    assert plan.checkpoint == 12 * plan.parameters < plan.disk
    assert plan.memory >= 16 * plan.parameters and plan.seconds_per_step > 0
    assert plan.hours == pytest.approx(24 * plan.seconds_per_step / 3600)


@pytest.mark.parametrize("stage", ["dpo", "grpo", "distill"])
def test_pairs_and_completions_count(tmp_path, stage):
    changes = {"model_preset": None, "model_overrides": {}, "model_name_or_path": "someone/Doge-20M-x"}
    if stage == "grpo":
        changes |= {"num_generations": 4, "max_completion_length": 8}
    if stage == "distill":
        changes |= {"teacher_model_name_or_path": "someone/teacher", "max_completion_length": 8}
    path = write(tmp_path, stage, **changes)
    run = load_stage(path, {})
    assert run.args.compute_row_length(run.data.max_length) == {"dpo": 32, "grpo": 40, "distill": 40}[stage]
    assert count_steps(run.data, run.args) == {"dpo": 24, "grpo": 96, "distill": 24}[stage]
    assert find_config(run.model).hidden_size == 256  # the size that the name tells


@pytest.fixture
def trained(tmp_path):
    """Settings of a run that goes on from a tiny model."""
    DogeConfig(**TINY).save_pretrained(tmp_path / "model")
    return {"model_preset": None, "model_overrides": {}, "model_name_or_path": str(tmp_path / "model")}


@pytest.mark.parametrize(
    ("stage", "changes", "accumulated"),
    [("dpo", {}, 5), ("grpo", {"num_generations": 4, "max_completion_length": 8}, 8)],
)
def test_tokens_of_a_step_count_both_answers_of_a_pair_and_completions(
    monkeypatch, tmp_path, trained, stage, changes, accumulated
):
    monkeypatch.delitem(SETTINGS, "gradient_accumulation_steps")
    path = write(tmp_path, stage, tokens_per_step=1280, **trained, **changes)
    assert load_stage(path, {}).args.gradient_accumulation_steps == accumulated
    assert make_plan(path, {}).tokens_per_step == 1280


def test_completions_that_are_used_again_take_more_steps(tmp_path, trained):
    run = load_stage(write(tmp_path, "grpo", num_generations=4, num_iterations=2, **trained), {})
    assert count_steps(run.data, run.args) == 192


def test_a_checkpoint_of_an_adapter_is_planned_as_the_adapter_alone(tmp_path, trained):
    whole = make_plan(write(tmp_path, "sft", **trained), {})
    adapted = make_plan(write(tmp_path, "sft", lora_r=2, **trained), {})
    assert adapted.parameters == whole.parameters
    assert adapted.checkpoint < whole.checkpoint / 4 and adapted.disk < whole.disk


def test_the_longest_size_in_a_name_counts():
    found = find_config(ModelArguments(model_name_or_path="someone/Doge-20M-MoE-tuned"))
    assert found.is_moe and not find_config(ModelArguments(model_name_or_path="someone/Doge-20M-tuned")).is_moe


def test_what_the_data_decide_is_not_made_up(tmp_path):
    plan = make_plan(write(tmp_path, total_sample_size=-1), {})
    assert plan.steps is plan.tokens is plan.hours is None


def test_a_model_of_unknown_size_is_refused(tmp_path):
    path = write(tmp_path, model_preset=None, model_overrides={}, model_name_or_path="someone/unknown")
    with pytest.raises(ValueError, match="its name tells no size"):
        make_plan(path, {})


def test_memory_counts_an_average_of_the_weights(monkeypatch, tmp_path):
    @contextmanager
    def watch(device, before):
        yield lambda: 10**9

    monkeypatch.setattr(planning, "watch_memory", watch)
    config = DogeConfig(**TINY)
    parameters = DogeForCausalLM(config).num_parameters()
    peaks = [
        planning.run_probe(config, load_stage(write(tmp_path, weight_average=kind), {}), 2, 16)
        for kind in ("none", "uniform")
    ]
    assert peaks[1].memory - peaks[0].memory == 4 * parameters
