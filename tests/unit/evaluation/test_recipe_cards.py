"""Cards of recipes: for each size and stage, with what the recipe, the catalogue, the papers and finished runs say."""

import json
from pathlib import Path

import pytest
import yaml

from small_doge.cli.card import write_cards
from small_doge.evaluation.published import PUBLISHED
from small_doge.evaluation.recipe_cards import find_recipes, write_card
from small_doge.trainer.lineage import find_lineage
from small_doge.utils.errors import UserError


RECIPES = Path(__file__).parents[3] / "recipes"
SIZES = ("Doge-20M", "Doge-60M", "Doge-160M", "Doge-320M")
KINDS = ("", "-Instruct-SFT", "-Instruct", "-Reason-SFT", "-Reason")


@pytest.fixture(scope="module")
def cards():
    return dict(write_card(*found) for found in find_recipes(RECIPES / "doge"))


def read_header(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_each_size_and_stage_has_a_card(cards):
    assert set(cards) == {f"{size}{kind}" for size in SIZES for kind in KINDS}


def test_cards_credit_the_papers_and_tell_the_hub_data_and_base(cards):
    for size in SIZES:
        before = None
        for kind in KINDS:
            card = cards[f"{size}{kind}"]
            header = read_header(card)
            assert header["datasets"] and all(name.count("/") == 1 for name in header["datasets"])
            assert header.get("base_model") == before
            assert "arXiv" in card and "2412.11834" in card and "2508.02124" in card
            before = f"SmallDoge/{size}{kind}"


def test_card_has_the_size_the_settings_and_published_scores_with_their_source(cards):
    assert "| parameters | 13,118,728 |" in cards["Doge-20M"] and "| max_steps | 8000 |" in cards["Doge-20M"]
    for suite, models in PUBLISHED.items():
        for title, entry in models.items():
            if title in cards:
                text = cards[title].partition(
                    f"scores of the {suite} suite, from {entry['source']}; they were not run"
                )[2]
                assert all(f"| {task} | {score} |" in text for task, score in entry["figures"].items())
    assert "Published scores" not in cards["Doge-320M"]


def test_card_has_the_size_that_the_overrides_of_a_recipe_make():
    (tiny,) = (found for found in find_recipes(RECIPES / "tiny") if found[1].name == "pretrain")
    text = write_card(*tiny)[1]
    assert "| parameters | 1,577,288 |" in text and "13,118,728" not in text


def test_cards_of_one_name_are_refused(tmp_path):
    for size in ("Doge-20M", "Doge-60M"):
        (tmp_path / size).mkdir()
        recipe = (RECIPES / "tiny" / "pretrain.yaml").read_text()
        (tmp_path / size / "config_full.yaml").write_text(recipe)
    with pytest.raises(UserError, match="have cards of one name, pretrain"):
        write_cards(tmp_path, tmp_path / "cards")


def test_figures_of_a_finished_run_take_the_place_of_the_note(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = (found for found in find_recipes(RECIPES / "doge" / "Doge-20M") if found[1].name == "sft")
    note = "No run of this recipe has finished in `data/Doge-20M-Instruct-SFT`"
    assert note in write_card(*found)[1]
    run = tmp_path / "data" / "Doge-20M-Instruct-SFT"
    run.mkdir(parents=True)
    (run / "finished.json").write_text(json.dumps({"stage": "sft", "finished_at": 1.0, "held-out loss": 1.2345}))
    card = write_card(*found)[1]
    assert note not in card and "| held-out loss | 1.2345 |" in card and "finished_at" not in card


def test_files_of_ones_own_are_not_named_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    settings = {
        "datasets_and_ratios": [{"texts.jsonl": 0.5}, {"embedded:world:9": 0.5}],
        "model_name_or_path": "runs/sft",
    }
    assert find_lineage(settings) == {"datasets": [], "base_model": None}


def test_folder_without_recipes_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no recipe of a model"):
        list(find_recipes(tmp_path))
