"""The table of stages, and that a new stage is one file and one entry."""

import json
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY

from small_doge.trainer.stages import STAGES, Stage, find_stage, guess_stage, list_names, register_stage


ROOT = Path(__file__).parents[3]
RECIPE = {
    "model_preset": "Doge-20M",
    "model_overrides": {**TINY, "vocab_size": 512},
    "datasets_and_ratios": [{"embedded:world:60": 1.0}],
    "total_sample_size": 8,
    "max_length": 32,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "report_to": "none",
}


def test_a_stage_is_found_by_its_name_or_an_alias_and_a_near_miss_is_named():
    assert find_stage("pt") is find_stage("pretrain") is STAGES["pretrain"]
    with pytest.raises(ValueError, match=r"unknown stage 'spo'; did you mean 'dpo'"):
        find_stage("spo")
    assert list_names() == "pretrain, sft, dpo, distill or grpo"


@pytest.mark.parametrize("stage", STAGES.values(), ids=str)
def test_every_stage_has_recipes_for_the_demo_and_for_each_size(stage):
    assert stage.find_recipe(ROOT / "recipes" / "tiny") is not None
    for size in ("20M", "60M", "160M", "320M"):
        recipe = stage.find_recipe(ROOT / "recipes" / "doge" / f"Doge-{size}")
        assert recipe is not None
        assert guess_stage(recipe) is (STAGES["sft"] if stage.name == "distill" else stage)


def test_an_alias_names_a_recipe_too(tmp_path):
    (tmp_path / "pt.yaml").write_text("")
    assert STAGES["pretrain"].find_recipe(tmp_path) == tmp_path / "pt.yaml"
    assert guess_stage(tmp_path / "pt.yaml").name == "pretrain"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "pt"}, "'pt' is registered already"),
        ({"aliases": ("sft",)}, "'sft' is registered already"),
        ({"starts_from": "dop"}, "did you mean 'dpo'"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        register_stage(Stage(**{"name": "toy", "summary": "", "module": "toy", "row_format": "text", **changes}))
    assert "toy" not in STAGES


@pytest.fixture
def run(warm_python):
    """Run the command line of a program that has registered the toy stage; returns what it prints."""
    code = "import sys, tests.toy_stage; from small_doge.cli.main import main; sys.argv[0] = 'small-doge'; main()"

    def call(*words):
        done = warm_python.run("-c", code, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_a_new_stage_is_one_file_and_one_entry(run, tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    recipe = {**RECIPE, "tokenizer_name_or_path": str(tmp_path / "tokenizer")}
    for name in ("pretrain", "backwards"):
        (recipes / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    config = str(recipes / "backwards.yaml")

    assert "Learn texts from their last token" in run("train", "--help")
    assert "decay_type" in run("train", "settings", "backwards")
    assert "backwards by" in run("plan", "--config", config)
    run("train", "reversed", "--config", config, "--output_dir", str(tmp_path / "alone"))
    facts = json.loads((tmp_path / "alone" / "finished.json").read_text())
    assert facts["stage"] == "Learning backwards" and facts["steps"] == 2

    pretrained = {**recipe, "model_name_or_path": None}
    later = {k: v for k, v in pretrained.items() if k not in ("model_preset", "model_overrides")}
    (recipes / "backwards.yaml").write_text(yaml.safe_dump({k: v for k, v in later.items() if v is not None}))
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    words = ("--recipe", str(recipes), "--output", str(tmp_path / "out"), "--questions", str(questions))
    run("pipeline", *words)
    assert "| backwards |" in (tmp_path / "out" / "report.md").read_text()
    settings = yaml.safe_load((tmp_path / "out" / "backwards" / "recipe.yaml").read_text())
    assert settings["model_name_or_path"] == str(tmp_path / "out" / "pretrain")
