"""The journey through the real command line, every stage with a few steps."""

import json
from pathlib import Path

import pytest
import yaml
from tests.hub_copies import build_hub
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from small_doge.cli import demo as module
from small_doge.cli.main import app
from small_doge.utils.paths import find_tiny_recipes


FAST = {
    "tokenizer": {"texts": ["embedded:world:800", "embedded:chat:200", "embedded:problem:100"]},
    "pretrain": {"datasets_and_ratios": [{"embedded:world:300": 1.0}], "total_sample_size": 64, "test_size": 8},
    "sft": {"datasets_and_ratios": [{"embedded:chat:200": 1.0}], "total_sample_size": 16, "test_size": 4},
    "dpo": {"datasets_and_ratios": [{"embedded:preference:60": 1.0}], "total_sample_size": 16, "test_size": 4},
    "distill": {"datasets_and_ratios": [{"embedded:problem:200": 1.0}], "total_sample_size": 16, "test_size": 4},
    "grpo": {
        "datasets_and_ratios": [{"embedded:problem:60": 1.0}],
        "total_sample_size": 16,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
    },
}
STAGES = ("pretrain", "sft", "dpo", "distill", "grpo")


@pytest.fixture
def few_questions(monkeypatch):
    import small_doge.evaluation.held_out as held_out

    monkeypatch.setattr(held_out, "LIMIT", 6)
    monkeypatch.setattr(held_out, "MAX_NEW_TOKENS", 8)


@pytest.fixture
def recipes(few_questions, tmp_path, monkeypatch):
    """The shipped recipes on little data."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, changes in FAST.items():
        recipe = yaml.safe_load((find_tiny_recipes() / f"{name}.yaml").read_text())
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, **changes}))
    monkeypatch.setattr(module, "find_tiny_recipes", lambda: folder)
    return folder


def run(*words):
    done = CliRunner().invoke(app, [*words, "--max_steps", "2", "--eval_strategy", "no", "--report_to", "none"])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def read_stamps(folder):
    return {name: json.loads((folder / name / "finished.json").read_text())["finished_at"] for name in STAGES}


def test_the_journey_ends_in_a_report_and_goes_on_from_what_is_done(recipes, tmp_path):
    out = tmp_path / "out"
    first = run("demo", "--output", str(out), "--stages", "tokenizer,pretrain,sft")
    assert "done already" not in first and not (out / "dpo").exists()
    page = (out / "report.html").read_text()
    assert "<td>sft</td>" in page and "<td>dpo</td>" not in page
    second = run("demo", "--output", str(out))
    assert second.count("done already") == 3
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert all(f"<td>{name}</td>" in page and f"| {name} | " in text for name in STAGES)
    assert page.count("data:image/png") == 6 and "Versions: python" in text
    stamps = read_stamps(out)
    assert run("demo", "--output", str(out)).count("done already") == 6 and read_stamps(out) == stamps
    (out / "grpo" / "notes.txt").write_text("mine")
    run("demo", "--output", str(out), "--stages", "grpo", "--fresh")
    assert (out / "grpo" / "notes.txt").read_text() == "mine"
    again = read_stamps(out)
    assert again.pop("grpo") > stamps.pop("grpo") and again == stamps


def test_a_pipeline_asks_ones_own_questions(recipes, tmp_path):
    for name in ("dpo", "distill", "grpo"):
        (recipes / f"{name}.yaml").unlink()
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    out = tmp_path / "out"
    run("pipeline", "--recipe", str(recipes), "--output", str(out), "--questions", str(questions))
    assert "What is 1 + 1?" in (out / "report.md").read_text() and "questions right" in (out / "report.md").read_text()


def test_the_laptop_recipes_make_a_chat_model_from_copies_of_public_data(few_questions, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALL_DOGE_DATA_ROOT", str(build_hub(tmp_path / "hub", rows=200)))
    out = tmp_path / "out"
    laptop = Path(__file__).parents[2] / "recipes" / "laptop"
    few = ["--test_size", "4", "--pretrain.total_sample_size", "32", "--per_device_train_batch_size", "2"]
    said = run("pipeline", "--recipe", str(laptop), "--output", str(out), *few)
    questions = [json.loads(line)["question"] for line in (laptop / "questions.jsonl").read_text().splitlines()]
    assert "4 of 4 questions have no answer to score by" in said and all(question in said for question in questions)
    model = AutoModelForCausalLM.from_pretrained(out / "sft")
    assert model.config.tie_word_embeddings and model.config.vocab_size == 4096
