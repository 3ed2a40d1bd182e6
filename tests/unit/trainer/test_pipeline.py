"""Stages of a folder of recipes: found, connected, refused before anything runs."""

from pathlib import Path

import pytest

from small_doge.trainer import pipeline
from small_doge.trainer.pipeline import (
    choose_steps,
    connect,
    find_steps,
    run_pipeline,
    split_overrides,
)
from small_doge.trainer.stages import STAGES


ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny"


def test_the_tiny_recipes_are_every_stage_in_order(tmp_path):
    steps = find_steps(TINY, tmp_path)
    assert [step.name for step in steps] == ["tokenizer", *STAGES]
    assert not any(step.done for step in steps)


@pytest.mark.parametrize("size", ["20M", "60M", "160M", "320M"])
def test_the_recipes_of_a_size_are_found_beside_it(size, tmp_path):
    steps = find_steps(ROOT / "recipes" / "doge" / f"Doge-{size}", tmp_path)
    assert [step.name for step in steps] == list(STAGES)
    assert steps[-1].recipe.parts[-3:] == (f"Doge-{size}-Reason", "grpo", "config_full.yaml")


def test_each_stage_starts_from_the_one_before(tmp_path):
    steps = find_steps(TINY, tmp_path)
    settings = connect(steps, split_overrides({}, steps))
    assert settings["pretrain"]["tokenizer_name_or_path"] == str(tmp_path / "tokenizer")
    assert settings["sft"]["model_name_or_path"] == settings["pretrain"]["output_dir"]
    assert settings["grpo"]["model_name_or_path"] == settings["distill"]["output_dir"]
    assert "model_name_or_path" not in settings["pretrain"]


def test_settings_are_for_all_stages_or_for_one(tmp_path):
    steps = find_steps(TINY, tmp_path)
    found = split_overrides({"report_to": "none", "sft.report_to": "tensorboard", "dpo.beta": 0.2}, steps)
    assert found["pretrain"] == {"report_to": "none"} and found["sft"] == {"report_to": "tensorboard"}
    assert found["dpo"] == {"report_to": "none", "beta": 0.2}
    assert split_overrides({"pt.max_steps": 3}, steps)["pretrain"] == {"max_steps": 3}  # an alias
    with pytest.raises(ValueError, match=r"sftt.*sft"):
        split_overrides({"sftt.beta": 1}, steps)
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size"):  # its recipe takes no overrides
        split_overrides({"tokenizer.vocab_size": 400}, steps)


def test_settings_of_new_models_are_for_stages_that_begin_one(tmp_path):
    steps = find_steps(TINY, tmp_path)
    new = {"model_overrides.num_hidden_layers": 1, "init_zero_outputs": True, "model_preset": "Doge-60M"}
    found = split_overrides(new, steps)
    assert found["pretrain"] == new and found["sft"] == found["grpo"] == {}
    with pytest.raises(ValueError, match="model_overrides changes new models only"):
        run_pipeline(TINY, tmp_path, None, {"sft.model_overrides": {"num_hidden_layers": 1}})
    assert not list(tmp_path.iterdir())


def test_a_stage_that_is_done_runs_again_where_overwrite_is_set(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(pipeline, "train_stage", lambda name, recipe, settings: ran.append(name))
    for name in STAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "finished.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text("{}")
    run_pipeline(TINY, tmp_path, None, {"sft.overwrite": True})
    assert ran == ["sft"]


def test_unknown_stages_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"destill.*distill"):
        choose_steps(find_steps(TINY, tmp_path), ["destill"])
    with pytest.raises(ValueError, match="there is no such folder"):
        find_steps(tmp_path / "none", tmp_path)
    with pytest.raises(ValueError, match="none of tokenizer.yaml, pretrain.yaml"):
        find_steps(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("wanted", "overrides", "message"),
    [
        (["sft"], {}, "stage sft goes on from pretrain, which is not done"),
        (["pretrain"], {}, "stage pretrain goes on from tokenizer, which is not done"),
        (None, {"grpo.reward_func": ["accuracy"]}, "reward_func.*reward_funcs"),
        (None, {"learning_rat": 1}, "learning_rat.*learning_rate"),
    ],
)
def test_what_is_wrong_with_a_late_stage_is_said_before_the_first(tmp_path, wanted, overrides, message):
    with pytest.raises(ValueError, match=message):
        run_pipeline(TINY, tmp_path, wanted, overrides)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_recipe_with_an_unknown_setting_is_refused(tmp_path):
    (tmp_path / "tokenizer.yaml").write_text("texts: [embedded:world:10]\nvocab_sise: 400\n")
    with pytest.raises(ValueError, match=r"vocab_sise.*vocab_size"):
        run_pipeline(tmp_path, tmp_path / "out")
    (tmp_path / "tokenizer.yaml").write_text("vocab_size: 400\n")
    with pytest.raises(ValueError, match="texts must list"):
        run_pipeline(tmp_path, tmp_path / "out")


def test_a_tokenizer_alone_is_a_pipeline(tmp_path):
    (tmp_path / "tokenizer.yaml").write_text("texts: [embedded:world:60]\nvocab_size: 400\n")
    said = []
    (step,) = run_pipeline(tmp_path, tmp_path / "out", say=said.append)
    assert step.done and "tokenizer" in said[0]
    run_pipeline(tmp_path, tmp_path / "out", say=said.append)
    assert "done already" in said[1]
