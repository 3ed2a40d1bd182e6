"""Plans: told from settings, and from a probe that really ran."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY

from small_doge.models import DogeConfig, DogeForCausalLM
from small_doge.trainer import planning
from small_doge.trainer.arguments import ModelArguments, StageArguments
from small_doge.trainer.planning import count_steps, find_config, load_stage, make_plan, row_length
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


@pytest.mark.parametrize("stage", ["dpo", "grpo"])
def test_pairs_and_completions_count(tmp_path, stage):
    changes = {"model_preset": None, "model_overrides": {}, "model_name_or_path": "someone/Doge-20M-x"}
    if stage == "grpo":
        changes |= {"num_generations": 4, "max_completion_length": 8}
    path = write(tmp_path, stage, **changes)
    run = load_stage(path, {})
    assert row_length(run.data, run.args) == {"dpo": 32, "grpo": 40}[stage]
    assert count_steps(run.data, run.args) == {"dpo": 24, "grpo": 96}[stage]
    assert find_config(run.model).hidden_size == 256  # the size that the name tells


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
        planning.run_probe(config, StageArguments(output_dir=str(tmp_path), use_cpu=True, weight_average=kind), 2, 16)
        for kind in ("none", "uniform")
    ]
    assert peaks[1].memory - peaks[0].memory == 4 * parameters
