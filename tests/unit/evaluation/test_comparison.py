"""Comparisons of results: which items are paired, what is said where they differ, and what is refused."""

import json

import numpy as np
import pytest
from tests.unit.evaluation.conftest import write_lines
from typer.testing import CliRunner

from small_doge.cli import evaluate
from small_doge.cli.main import app
from small_doge.cli.suite_options import SuiteOptions
from small_doge.evaluation.comparison import compare_models, describe_comparisons, pair_items, read_scores
from small_doge.evaluation.comparison_tables import judge, list_cells, name_models, write_markdown
from small_doge.evaluation.results import run_suite
from small_doge.evaluation.running import plan_suite
from small_doge.utils.errors import UserError


def make_items(scores, prefix="q"):
    return [{"id": f"{prefix}{i}", "score": s, "prompt_hash": f"p{prefix}{i}"} for i, s in enumerate(scores)]


def write_results(folder, scores, model="one", suite="base", rows=None, result=None, **task):
    """Results as `small-doge eval` writes them; `scores` by task."""
    rows = rows or {name.upper(): [name] for name in scores}
    facts = {"model_hash": f"hash of {model}", "chat_template_hash": None, "versions": {"torch": "2"}, "commit": "c"}
    content = {
        "model": model,
        "suite": suite,
        "limit": None,
        **facts,
        "rows": [
            {
                "row": name,
                "tasks": tasks,
                "task_hashes": [f"hash of {task}" for task in tasks],
                "shots": 0,
                "is_further": False,
                "notes": {"num_cut": 0},
            }
            for name, tasks in rows.items()
        ],
        **(result or {}),
    }
    (folder / "tasks").mkdir(parents=True)
    for name, values in scores.items():
        items = values if isinstance(values[0], dict) else make_items(values)
        about = {**facts, "task": name, "task_hash": f"hash of {name}", "shots": 0, "metric": "acc", "form": "cloze"}
        about |= {**task, "items": items}
        (folder / "tasks" / f"{suite}-{name}-0shot.json").write_text(json.dumps(about))
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def compare(*folders):
    return compare_models([read_scores(folder) for folder in folders])


def test_results_of_a_suite_have_the_scores_of_their_table(rigged, tmp_path):
    rows = [{"task": "object_counting", "input": f"{i}?", "target": "1"} for i in range(3)]
    rows.append({"task": "navigate", "input": "Back?\nOptions:\n- Yes\n- No", "target": "Yes"})
    (tmp_path / "bbh_3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = plan_suite("base", tmp_path, ["bbh"], shots=[0])
    results = {
        name: run_suite(rigged(*texts), name, plan, tmp_path / name, batch_size=1)
        for name, texts in (("one", ["Q: Back?\nOptions:\n- Yes\n- No\nA: Yes\n"]), ("two", ["Q: 1?\nA: 1\n"]))
    }
    (found,) = compare(tmp_path / "one", tmp_path / "two")
    test = found.rows["BBH"]
    assert (test.first, test.second) == tuple(results[name]["rows"][0]["score"] for name in ("one", "two"))
    assert test.first == 0.5 and (test.only_first, test.only_second, test.n) == (1, 1, 4)


def test_items_are_paired_by_their_names_whatever_their_order(tmp_path):
    items = make_items([1, 0, 1, 1])
    a = write_results(tmp_path / "a", {"arc": items})
    b = write_results(tmp_path / "b", {"arc": [{**item, "score": 1 - item["score"]} for item in items[::-1]]}, "two")
    (found,) = compare(a, b)
    test = found.rows["ARC"]
    assert (test.n, test.first, test.second, test.only_first, test.only_second) == (4, 0.75, 0.25, 3, 1)
    assert list(found.rows) == ["ARC"] and found.notes == []


def test_tasks_of_a_row_weigh_alike_and_rows_do_in_the_average(tmp_path):
    scores = {"easy": [1] * 30, "hard": [0] * 10, "piqa": [1] * 5}
    rows = {"ARC": ["easy", "hard"], "PIQA": ["piqa"]}
    a = write_results(tmp_path / "a", scores, rows=rows)
    b = write_results(tmp_path / "b", {**scores, "hard": [1] * 10}, "two", rows=rows)
    (found,) = compare(a, b)
    assert found.rows["ARC"].second == 1 and found.rows["ARC"].difference == pytest.approx(0.5)
    assert found.rows["average"].difference == pytest.approx(0.25) and found.rows["average"].n == 45
    assert any("Holm" in note for note in found.notes)


def test_groups_of_a_task_weigh_alike_as_in_its_score(tmp_path):
    groups = ["law"] * 8 + ["art"] * 2
    items = [{**item, "group": group} for item, group in zip(make_items([1] * 8 + [0] * 2), groups, strict=True)]
    a = write_results(tmp_path / "a", {"mmlu": items})
    b = write_results(tmp_path / "b", {"mmlu": [{**item, "score": 1} for item in items]}, "two")
    test = compare(a, b)[0].rows["MMLU"]
    assert (test.first, test.second, test.n) == (0.5, 1.0, 10) and test.difference == pytest.approx(0.5)


def test_what_is_in_one_result_alone_is_left_out_and_said(tmp_path):
    a = write_results(tmp_path / "a", {"arc": [1, 0, 1], "piqa": [1, 0]})
    b = write_results(tmp_path / "b", {"arc": [1, 0], "obqa": [1, 0]}, "two", result={"versions": {"torch": "3"}})
    (found,) = compare(a, b)
    told = " ".join(found.notes)
    assert found.rows["ARC"].n == 2 and list(found.rows) == ["ARC"]
    assert "PIQA: left out, only one was asked." in told and "OBQA: left out, only two was asked." in told
    assert "ARC: arc has 1 and 0 items that the other lacks; left out." in told
    assert "Versions differ: torch 2 and 3." in told


def test_other_questions_under_the_same_names_are_not_paired(tmp_path):
    a = write_results(tmp_path / "a", {"arc": make_items([1, 0, 1])})
    others = [{**item, "prompt_hash": "another"} if item["id"] == "q1" else item for item in make_items([1, 0, 1])]
    (found,) = compare(a, write_results(tmp_path / "b", {"arc": others}, "two"))
    assert found.rows["ARC"].n == 2 and "1 items of arc have other prompts" in found.notes[0]


def test_other_examples_are_another_way_to_ask_the_same_items(tmp_path):
    a = write_results(tmp_path / "a", {"arc": make_items([1, 0, 1])}, shots=5)
    others = [{**item, "prompt_hash": "another"} for item in make_items([1, 0, 1])]
    (found,) = compare(a, write_results(tmp_path / "b", {"arc": others}))
    assert found.rows["ARC"].n == 3
    assert any("5 and 0 examples: the same items, asked in another way" in note for note in found.notes)
    assert any("the same model" in note for note in found.notes)


def test_items_of_one_name_are_numbered():
    items = [{"id": "q", "score": s, "prompt_hash": "p"} for s in (1, 0)]
    np.testing.assert_array_equal(pair_items(items, items).scores, [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("scores", "task", "message"),
    [
        ({"piqa": [1, 0]}, {}, "no items in common.*ARC: left out, only one"),
        ({"arc": make_items([1, 0], "other")}, {}, "no item of arc is in both"),
        ({"arc": [1, 0]}, {"metric": "exact_match"}, "arc has metric acc and exact_match"),
    ],
)
def test_results_without_common_items_are_refused_with_the_reason(tmp_path, scores, task, message):
    a = write_results(tmp_path / "a", {"arc": [1, 0]})
    b = write_results(tmp_path / "b", scores, "two", **task)
    with pytest.raises(UserError, match=message):
        compare(a, b)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no results\.json.*small-doge eval MODEL"):
        read_scores(tmp_path)
    folder = write_results(tmp_path / "a", {"arc": [1, 0]})
    (folder / "tasks" / "base-arc-0shot.json").unlink()
    with pytest.raises(UserError, match="is not whole"):
        read_scores(folder)


@pytest.mark.parametrize("changed", [{"model_hash": "of other weights"}, {"task_hash": "of other rows"}])
def test_items_of_a_later_run_that_failed_are_not_taken_for_those_of_the_table(tmp_path, changed):
    folder = write_results(tmp_path / "a", {"arc": [1, 0], "piqa": [1, 0]})
    path = folder / "tasks" / "base-piqa-0shot.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(
        UserError, match=r"piqa-0shot\.json is of another .* than results\.json.*run small-doge eval again"
    ):
        read_scores(folder)


def test_the_verdict_names_the_better_model_or_what_is_missing(tmp_path):
    a = write_results(tmp_path / "a", {"one": [0] * 30, "two": [1] * 30, "three": [0, 1] * 15})
    b = write_results(tmp_path / "b", {"one": [1] * 30, "two": [1] * 30, "three": [1, 0] * 14 + [1, 1]}, "other")
    (found,) = compare(a, b)
    verdicts = [judge(test, ("A", "B")) for test in found.rows.values()]
    assert verdicts[:2] == ["B is better", "right and wrong on the same items"]
    assert verdicts[2].startswith("can't tell: about ") and verdicts[2].endswith(" more items needed")


def test_models_of_one_folder_name_are_told_apart_by_their_paths(tmp_path):
    models = [read_scores(write_results(tmp_path / n, {"arc": [1, 0]}, f"{n}/sft")) for n in ("x", "y")]
    assert name_models(models) == ["x/sft", "y/sft"]


def test_three_results_are_shown_and_written_against_the_first(tmp_path):
    folders = [write_results(tmp_path / n, {"arc": [1, 0, 1, 1]}, f"runs/{n}") for n in ("float", "int8", "int4")]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["eval", "compare", *map(str, folders), "-o", str(out)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "float and int8" in done.output and "float and int4" in done.output
    kept = json.loads((out / "comparison.json").read_text())
    assert [other["model"] for other in kept["others"]] == ["runs/int8", "runs/int4"]
    assert kept["others"][0]["rows"]["ARC"]["p_value"] == 1.0 and kept["first"]["weight_bytes"] is None
    text = (out / "comparison.md").read_text()
    assert "# float against int8, int4, base suite" in text and "| ARC | 4 | 75.0 | 75.0 | +0.0 |" in text


def test_models_are_scored_again_only_where_what_is_asked_is_other(tiny_engine, data, tmp_path):
    models = [tmp_path / name for name in ("one", "two")]
    for model in models:
        tiny_engine.backend.model.save_pretrained(model)
        tiny_engine.tokenizer.save_pretrained(model)
    words = ["eval", "compare", *map(str, models), "--tasks", "openbookqa", "--data-root", str(data)]

    def run(*more):
        return CliRunner().invoke(app, [*words, *more], catch_exceptions=False).output.count("taken from")

    def count_items(folder="eval-base-openbookqa"):
        return [len(read_scores(model / folder).tasks["openbookqa"]["items"]) for model in models]

    assert run() == 0 and count_items() == [4, 4]
    assert run() == 2
    assert run("--limit", "1") == 0 and count_items("eval-base-openbookqa-limit1") == [1, 1]
    assert count_items() == [4, 4]
    write_lines(data / "openbookqa_val.jsonl.gz", [{"question": "Who", "choices": ["Ada", "Bo"], "answer": 0}] * 3)
    assert run() == 0 and count_items() == [3, 3]


def test_models_are_asked_with_the_options_of_eval(tmp_path, monkeypatch):
    asked = []

    def score(name, how, threads):
        asked.append(how)
        return write_results(tmp_path / f"{name}-eval", {"arc": [1, 0]}, name), {}

    monkeypatch.setattr(evaluate, "score_model", score)
    words = ["eval", "compare", "one", "two", "--suite", "instruct", "--no-chat", "--skip-missing", "--shots", "0"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert asked == [SuiteOptions("instruct", shots="0", chat=False, skip_missing=True)] * 2


def test_hub_models_have_folders_of_their_own(data, monkeypatch):
    folders = []

    def open_engine(name, *_, **__):
        raise UserError("out of reach")

    monkeypatch.setattr("small_doge.inference.export_cache.open_fast_engine", open_engine)
    monkeypatch.setattr(evaluate, "check_output_path", folders.append)
    for name in ("owner/model", "owner/other"):
        CliRunner().invoke(app, ["eval", name, "--tasks", "openbookqa", "--data-root", str(data)])
    assert [folder.name.rsplit("-", 1)[0] for folder in folders] == [
        "eval-base-openbookqa-owner__model",
        "eval-base-openbookqa-owner__other",
    ]


def test_one_result_alone_is_refused(tmp_path):
    folder = write_results(tmp_path / "a", {"arc": [1, 0]})
    done = CliRunner().invoke(app, ["eval", "compare", str(folder)])
    assert "needs two models" in str(done.exception)


def test_sizes_of_weights_are_told_where_they_are(tmp_path):
    for name, size in (("big", 4000), ("small", 1000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"x" * size)
    folders = [write_results(tmp_path / f"{n}-eval", {"arc": [1, 0]}, str(tmp_path / n)) for n in ("big", "small")]
    first, second = map(read_scores, folders)
    comparisons = compare_models([first, second])
    assert "small 0.0 MB (25%)" in write_markdown(first, comparisons)
    assert describe_comparisons(first, comparisons)["others"][0]["weight_bytes"] == 1000
    assert list_cells(("a", "b"), comparisons[0])[0][2:4] == ["a", "b"]
