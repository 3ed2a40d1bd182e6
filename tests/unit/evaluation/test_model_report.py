"""The report of a model: what it tells, what it says is missing, and that the card has the same figures."""

import json
import re
import shutil
from html import escape

import pytest
from tests.conftest import build_tiny
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation.model_report import (
    BASE_PROMPTS,
    CHAT_PROMPTS,
    count_parameters,
    describe_sizes,
    find_scores,
)
from small_doge.evaluation.provenance import hash_model
from small_doge.evaluation.report_page import list_sections, write_page
from small_doge.inference.export import export_onnx
from small_doge.utils.errors import UserError
from small_doge.utils.files import RECORD, check_output, write_json, write_text
from small_doge.utils.model_card import FIGURES_BEGIN, build_model_card, replace_figures


FACTS = {"parameters": "9,999", "steps": 20, "held-out loss": 1.2345}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_tokenizer):
    """A folder as training leaves it."""
    folder = tmp_path_factory.mktemp("run") / "sft"
    build_tiny(vocab_size=len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    write_json(folder / "finished.json", {"stage": "Supervised fine-tuning", "finished_at": 1.0, **FACTS})
    rows = [{"step": n, "loss": 3.0 / n, "learning_rate": 0.1} for n in range(1, 9)] + [{"step": 8, "eval_loss": 0.5}]
    write_text(folder / "training_log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(folder / "recipe.yaml", "learning_rate: 0.1\n")
    write_text(
        folder / "README.md", build_model_card("sft", "Supervised fine-tuning", FACTS, {}, "sft") + "My words.\n"
    )
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "sft")


def run(folder, *words):
    done = CliRunner().invoke(app, ["report", str(folder), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, json.loads((folder / "report.json").read_text())


def add_scores(folder, digest=None):
    row = {
        **{
            "row": "ARC",
            "tasks": ["arc_easy"],
            "score": 0.31,
            "stderr": 0.02,
            "low": 0.27,
            "high": 0.35,
            "chance": 0.25,
        },
        **{"n": 570, "above_chance": True, "shots": 5, "form": "cloze", "metric": "acc_norm", "chat": False},
        **{"unit": "%", "prompt": "the question", "is_further": False, "groups": None, "data_notes": []},
        **{"task_hashes": ["a"], "prompt_hashes": ["b"], "notes": {"num_cut": 0, "num_split_words": 0}},
    }
    guess = {**row, "row": "PIQA", "score": 0.26, "above_chance": False}
    content = {"model": str(folder), "suite": "base", "limit": None, "model_hash": digest or hash_model(str(folder))}
    content |= {"chat_template_hash": None, "commit": None, "versions": {"torch": "2"}, "rows": [row, guess]}
    content |= {
        "engine": "PyTorch",
        "max_length": 256,
        "skipped": [],
        "notes": [],
        "controls": [],
        "check": [],
        "speed": None,
    }
    write_json(folder / "eval-base" / "results.json", content)


def test_the_page_needs_nothing_else_and_has_every_part(folder):
    output, report = run(folder)
    page = (folder / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!#|https://github\.com)', page) and "<script" not in page
    assert page.count("<svg") == 1 and "currentColor" in page and "prefers-color-scheme: dark" in page
    for title in ("Model and sizes", "Training", "Scores", "Perplexity", "Speed", "Samples", "Use"):
        assert f">{title}</h2>" in page
    for value in FACTS.values():
        assert f"<td>{value}</td>" in page
    for answer in report["samples"]["answers"]:
        assert escape(answer["prompt"]) in page.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")
    assert report["sizes"]["parameters"] == count_parameters(folder) > 1000
    assert "small-doge report" not in output and "Written" in output


def test_what_is_missing_is_named_with_the_command_that_makes_it(folder):
    output, report = run(folder)
    assert f"small-doge eval {folder} --data-root DIR" in output.replace("\n", "")
    assert set(report["missing"]) == {"scores", "perplexity", "exports"}
    page = (folder / "report.html").read_text()
    assert f"small-doge eval perplexity {folder} FILES" in page and f"small-doge export {folder}" in page


def test_scores_of_these_weights_are_taken_and_others_are_left_out(folder):
    add_scores(folder)
    _, report = run(folder)
    page = (folder / "report.html").read_text()
    assert "scores" not in report["missing"] and "<td>31.0</td>" in page
    assert "<tr class=grey><td>PIQA</td><td>26.0 (chance)</td>" in page
    add_scores(folder, digest="of other weights")
    output, report = run(folder)
    assert "scores" in report["missing"] and report["outdated"] == [str(folder / "eval-base" / "results.json")]
    assert "since the weights changed" in output


def test_results_beside_the_folder_are_found(folder):
    add_scores(folder)
    shutil.move(folder / "eval-base", folder.parent / "scores")
    _, report = run(folder)
    assert report["scores"][0]["rows"][0]["row"] == "ARC" and report["outdated"] == []


@pytest.mark.parametrize("file", ["results.json", "eval-mine/results.json", "perplexity.json"])
@pytest.mark.parametrize("content", [b"[1, 2]", b'{"a": 1}\n{"a": 2}\n', b'{"half', b"\xff", b"[" * 100_000])
def test_foreign_results_are_passed_over_beside_the_model_and_named_inside_it(folder, file, content):
    add_scores(folder.parent / "scores", digest="of the model")
    own, foreign = folder / file, folder.parent / "other" / file
    for path in (own, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_bytes(content)
    assert find_scores(folder, "of the model")["scores"][0]["rows"]
    own.write_bytes(content)
    with pytest.raises(UserError, match=f"{own} is no result file"):
        find_scores(folder, "of the model")


def test_card_and_page_have_the_same_figures_and_the_rest_of_the_card_stays(folder):
    add_scores(folder)
    run(folder)
    card, page = (folder / "README.md").read_text(), (folder / "report.html").read_text()
    assert card.endswith("My words.\n") and "library_name: transformers" in card
    speed = json.loads((folder / "report.json").read_text())["speed"]["rows"][-1]
    for figure in ("31.0", "1.2345", f"{speed['decode_tok_s']:,.0f}"):
        assert f"| {figure} |" in card and f"<td>{figure}</td>" in page
    again, kept = run(folder)
    assert kept["speed"]["rows"][-1] == speed and (folder / "README.md").read_text() == card
    assert "Figures updated" in again
    assert run(folder, "--fresh")[1]["speed"]["rows"][-1] != speed


def test_a_card_without_a_place_for_figures_is_left_alone_unless_it_is_told(folder):
    (folder / "README.md").write_text("# Mine\n")
    output, _ = run(folder)
    assert "write it anew with --card" in output and (folder / "README.md").read_text() == "# Mine\n"
    run(folder, "--card")
    assert FIGURES_BEGIN in (folder / "README.md").read_text()
    (folder / "README.md").unlink()
    run(folder)
    assert "1.2345" in (folder / "README.md").read_text()


def test_figures_of_a_card_are_replaced_as_a_whole():
    card = build_model_card("title", "stage", {"loss": 1}, {}, "path") + "tail"
    assert "| loss | 1 |" in card
    once = replace_figures(card, "NEW")
    assert "NEW" in once and "loss" not in once and once.endswith("tail") and replace_figures(once, "NEW") == once
    assert replace_figures("no marks", "NEW") is None


def test_base_models_go_on_and_chat_models_answer(folder):
    assert [a["prompt"] for a in run(folder)[1]["samples"]["answers"]] == list(CHAT_PROMPTS)
    finished = json.loads((folder / "finished.json").read_text())
    write_json(folder / "finished.json", {**finished, "stage": "Pre-training"})
    report = run(folder)[1]
    assert [a["prompt"] for a in report["samples"]["answers"]] == list(BASE_PROMPTS) and not report["samples"]["chat"]
    report = run(folder, "--prompt", "Ada <b>", "--chat")[1]
    assert [a["prompt"] for a in report["samples"]["answers"]] == ["Ada <b>"] and report["samples"]["chat"]
    assert "Ada <b>" not in (folder / "report.html").read_text()


def test_an_export_has_its_own_facts_and_stays_one_that_can_be_made_again(folder, tiny_tokenizer, tmp_path):
    out = tmp_path / "sft-int8"
    model = build_tiny(vocab_size=len(tiny_tokenizer))
    export_onnx(model, tiny_tokenizer, out, texts=["Ada has 12 red balls."] * 4, max_perplexity_increase=1.0)
    output, report = run(out)
    assert report["exported"] and report["facts"]["weights"] == "blocks of 8 bits"
    assert "blocks of 8 bits" in (out / "README.md").read_text() and "Figures updated" in output
    assert (out / RECORD).is_file() and check_output(out, "small-doge export") == []
    assert run(folder)[1]["sizes"]["exports"].keys() == {"sft-int8"}


def test_exports_of_models_with_longer_names_are_theirs(folder):
    own = {"onnx", "float32", "int8", "int4", "kv-int8", "int8-kv-int8"}
    for name in ("sft", "sft-long"):
        for suffix in own:
            (folder.parent / f"{name}-{suffix}").mkdir()
            (folder.parent / f"{name}-{suffix}" / "runtime.json").write_text("{}")
            (folder.parent / f"{name}-{suffix}" / "model.onnx").write_bytes(b"")
    assert describe_sizes(folder)["exports"].keys() == {f"sft-{suffix}" for suffix in own}


def test_a_page_may_stand_elsewhere(folder, tmp_path):
    run(folder, "--output", str(tmp_path / "site" / "index.html"))
    assert (tmp_path / "site" / "index.md").is_file() and not (folder / "report.html").exists()
    refused = CliRunner().invoke(app, ["report", str(folder), "--output", str(tmp_path / "page.txt")])
    assert "must end in .html" in str(refused.exception)
    none = CliRunner().invoke(app, ["report", str(tmp_path / "sfd")])
    assert "there is no folder" in str(none.exception) and "did you mean" in str(none.exception)


def test_a_page_replaces_no_markdown_that_is_not_a_report(folder, tmp_path):
    notes, card = tmp_path / "notes.md", folder / "README.md"
    for path, what in ((notes, "no report"), (card, "the model card"), (folder / "report.md", "no report")):
        path.write_text("# Mine\n")
        refused = CliRunner().invoke(app, ["report", str(folder), "--output", str(path.with_suffix(".html"))])
        assert f"writes {path} too, which is {what}" in str(refused.exception)
        assert path.read_text() == "# Mine\n" and not (folder / "report.json").exists()
    card.unlink()
    refused = CliRunner().invoke(app, ["report", str(folder), "--output", str(folder / "README.html")])
    assert "the model card" in str(refused.exception)


def test_a_report_replaces_an_earlier_one(folder, tmp_path):
    for words in ((), ("--output", str(tmp_path / "page.html"))):
        run(folder, *words)
        run(folder, *words)
    (folder / "report.md").write_text((folder / "report.md").read_text() + "My notes.\n")
    refused = CliRunner().invoke(app, ["report", str(folder)])
    assert "no report" in str(refused.exception)


def test_damaged_files_are_named(folder):
    (folder / "finished.json").write_text("{")
    refused = CliRunner().invoke(app, ["report", str(folder)])
    assert "finished.json is damaged" in str(refused.exception)


def test_a_report_without_training_or_results_is_still_a_page(folder):
    for name in ("finished.json", "training_log.jsonl", "recipe.yaml", "README.md"):
        (folder / name).unlink()
    _, report = run(folder)
    assert report["training"] is None and "training" in report["missing"]
    assert "<svg" not in write_page(report) and len(list_sections(report)) == 6
