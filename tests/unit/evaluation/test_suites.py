"""Suites on tiny data made here: what they ask, what they report, how they go on, and what they refuse."""

import json

import pytest
from tests.unit.evaluation.conftest import QUESTIONS, write_lines
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation import running
from small_doge.evaluation.comparison import read_scores
from small_doge.evaluation.results import run_suite
from small_doge.evaluation.running import plan_suite
from small_doge.evaluation.score_tables import list_warnings, write_html, write_markdown
from small_doge.evaluation.suites import SUITES, choose_rows, choose_shots, parse_shots
from small_doge.evaluation.task_data import MissingDataError
from small_doge.evaluation.task_files import list_tasks, read_task
from small_doge.utils.errors import UserError


NAMES = [name for _, name in QUESTIONS]


def run(engine, data, tmp_path, suite="base", batch_size=None, say=lambda _: None, **how):
    return run_suite(engine, "rigged", plan_suite(suite, data, **how), tmp_path / "out", batch_size, say=say)


def test_a_model_that_knows_the_answers_has_them_all_right(rigged, data, tmp_path):
    engine = rigged(*(f"Question: {q}\nAnswer: {a}" for q, a in QUESTIONS))
    (row,) = run(engine, data, tmp_path, names=["arc"], shots=[0])["rows"]
    assert (row["score"], row["n"], row["chance"], row["tasks"]) == (1.0, 8, 0.25, ["arc_easy", "arc_challenge"])
    assert row["above_chance"] and not row["covers_chance"]


def test_a_model_that_always_takes_the_first_choice_is_at_chance(rigged, data, tmp_path):
    engine = rigged(*(f"{q} {NAMES[0]}" for q, _ in QUESTIONS))
    result = run(engine, data, tmp_path, names=["openbookqa"])
    (row,) = result["rows"]
    assert row["score"] == 0.25 and row["covers_chance"] and not row["above_chance"]
    page, text = write_html(result), write_markdown(result)
    assert '<td class="chance">25.0</td>' in page and "25.0 (chance)" in text and "**" not in text


def test_the_end_of_a_sentence_is_scored_after_each_choice(rigged, data, tmp_path):
    (row,) = run(rigged("Ada reads more."), data, tmp_path, names=["winogrande"])["rows"]
    assert row["score"] == 0.5 and row["form"] == "partial cloze"


def test_generated_answers_are_matched_by_any_alias_and_example_rows_are_no_items(rigged, data, tmp_path):
    shots = "Question: Who reads\nAnswer: Ada\n\n"
    engine = rigged(f"{shots}Question: Who sings\nAnswer: the Bo.\n")
    (row,) = run(engine, data, tmp_path, names=["triviaqa"], shots=[1], batch_size=1)["rows"]
    assert row["n"] == 3 and row["score"] == pytest.approx(1 / 3)


def test_every_suite_runs_as_a_whole(rigged, data, tmp_path):
    for suite, rows in SUITES.items():
        engine = rigged()
        shots = None if suite != "base" else [0]
        result = run(engine, data, tmp_path, suite, shots=shots, limit=1, batch_size=4)
        assert [row["row"] for row in result["rows"] if not row["is_further"]] == list(rows)
        assert all(row["n"] >= 1 and row["task_hashes"] and row["prompt_hashes"] for row in result["rows"])
        assert all(row["prompt"] and row["form"] for row in result["rows"])
        assert bool(result["chat_template_hash"]) == (suite != "base")
        assert {"lm-eval", "torch"} <= set(result["versions"])
        assert "Only 1 items" in write_markdown(result)


def test_a_killed_run_goes_on_after_its_last_whole_task(rigged, data, tmp_path, monkeypatch):
    engine, asked, real = rigged(), [], running.run_task

    def fail_at_second(lm, task, chat):
        asked.append(task.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(lm, task, chat)

    monkeypatch.setattr(running, "run_task", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(engine, data, tmp_path, names=["openbookqa", "hellaswag"])
    first = run(engine, data, tmp_path, names=["openbookqa", "hellaswag"])
    assert asked == ["openbookqa", "hellaswag", "hellaswag"]
    assert run(engine, data, tmp_path, names=["openbookqa", "hellaswag"]) == first and len(asked) == 3
    run(engine, data, tmp_path, names=["openbookqa"], limit=2)
    assert asked[3:] == ["openbookqa"]  # other items, so it is another run


def test_an_interrupted_run_says_what_is_kept(rigged, data, tmp_path, monkeypatch):
    said, real = [], running.run_task

    def stop_at_second(lm, task, chat):
        if task.name == "hellaswag":
            raise KeyboardInterrupt
        return real(lm, task, chat)

    monkeypatch.setattr(running, "run_task", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(rigged(), data, tmp_path, names=["openbookqa", "hellaswag"], say=said.append)
    assert "1 of 2 tasks are finished and kept; the same command goes on" in said[-1]


def test_several_numbers_of_examples_are_rows_of_their_own(rigged, data, tmp_path):
    engine = rigged(*(f"Question: {q}\nAnswer: {a}" for q, a in QUESTIONS))
    result = run(engine, data, tmp_path, names=["arc"], shots=[0, 2])
    none, two = result["rows"]
    assert (none["row"], none["shots"], none["score"]) == ("ARC", 0, 1.0)
    assert two["shots"] == 2 and two["score"] < 1
    assert "29.8 (5-shot)" in write_markdown(result)


def test_rows_without_data_are_left_out_only_if_that_is_wanted_and_told(rigged, data, tmp_path):
    (data / "piqa_val.jsonl.gz").unlink()
    with pytest.raises(MissingDataError, match="piqa_val.jsonl.gz.*--skip-missing"):
        run(rigged(), data, tmp_path, names=["piqa", "openbookqa"])
    result = run(rigged(), data, tmp_path, names=["piqa", "openbookqa"], skip_missing=True)
    assert [row["row"] for row in result["rows"]] == ["OBQA"]
    assert "PIQA was left out: task piqa needs piqa_val.jsonl.gz" in write_markdown(result)
    with pytest.raises(UserError, match="no task is left: task piqa"):
        run(rigged(), data, tmp_path, names=["piqa"], skip_missing=True)


def test_the_groups_of_a_task_weigh_the_same_and_a_limit_takes_them_by_turns(rigged, data, tmp_path):
    rows = [{"task": "object_counting", "input": f"{i}?", "target": "1"} for i in range(3)]
    rows.append({"task": "navigate", "input": "Back?\nOptions:\n- Yes\n- No", "target": "Yes"})
    write_lines(data / "bbh_3.jsonl.gz", rows)
    engine = rigged("Q: Back?\nOptions:\n- Yes\n- No\nA: Yes\n")
    whole = run(engine, data, tmp_path, names=["bbh"], shots=[0])
    (row,) = whole["rows"]
    assert "BBH, 0-shot over all items alike, as in lighteval's table: 25.0." in write_markdown(whole)
    assert row["score"] == 0.5 and row["n"] == 4 and row["groups"]["navigate"] == {"score": 1, "chance": 0.5, "n": 1}
    result = run(engine, data, tmp_path, names=["bbh"], shots=[0], limit=2)
    assert result["rows"][0]["groups"].keys() == {"navigate", "object_counting"}
    assert "2 of 27 tasks; missing: boolean_expressions" in "".join(list_warnings(result))


def test_instructions_are_scored_by_prompt_and_by_instruction(rigged, data, tmp_path):
    rows = run(rigged(), data, tmp_path, "instruct", names=["ifeval"])["rows"]
    names = ["IFEval", "IFEval, prompts, loose", "IFEval, instructions, strict", "IFEval, instructions, loose"]
    assert [row["row"] for row in rows] == names
    assert [row["n"] for row in rows] == [2, 2, 3, 3]


def test_answers_are_kept_with_whether_they_ended(rigged, data, tmp_path):
    engine = rigged("Who reads Ada", end_after=["Who reads Ada"])
    result = run(engine, tmp_path, tmp_path, "demo", names=["demo_questions"], limit=2, chat=False, batch_size=1)
    items = json.loads((tmp_path / "out" / "tasks" / "demo-demo_questions-0shot-limit2-plain.json").read_text())[
        "items"
    ]
    assert [item["ended"] for item in items] == [False, False] and {"answer", "direct"} <= items[0].keys()
    assert "2 answers did not end within their length" in "".join(list_warnings(result))


def test_the_speed_is_measured_once(rigged, data, tmp_path):
    first, again = (run(rigged(), data, tmp_path, names=["openbookqa"]) for _ in range(2))
    assert first["speed"] == again["speed"] and first["speed"]["tokens_per_second"] > 0
    assert "| tokens / s | " in write_markdown(first) and "| 142 | 62 | 28 |" in write_markdown(first)


def test_the_speed_is_measured_again_with_other_threads(rigged, data, tmp_path):
    one, two = rigged(), rigged()
    one.threads, two.threads = 1, 2
    found = [run(engine, data, tmp_path, names=["openbookqa"])["speed"]["threads"] for engine in (one, two)]
    assert found == [1, 2]


def test_other_limits_and_ways_to_ask_leave_the_items_of_a_whole_run(rigged, data, tmp_path):
    for how in ({}, {"limit": 2}, {"chat": True}):
        run(rigged(), data, tmp_path, names=["openbookqa"], **how)
        assert len(read_scores(tmp_path / "out").tasks["openbookqa"]["items"]) == (2 if "limit" in how else 4)
    names = sorted(path.name for path in (tmp_path / "out" / "tasks").iterdir())
    begin = "base-openbookqa-0shot"
    assert names == [f"{begin}-chat.json", f"{begin}-limit2.json", f"{begin}.json"]


def test_the_batch_is_kept_and_is_one_for_answers_of_int4(rigged, data, tmp_path):
    for quantize, expected in (("int8", {1, 2, 4}), ("int4", {1})):
        engine = rigged()
        engine.settings = {"quantize": quantize}
        run(engine, data, tmp_path / quantize, names=["triviaqa", "openbookqa"], shots=[0])
        tasks = read_scores(tmp_path / quantize / "out").tasks
        assert tasks["triviaqa"]["batch_size"] in expected and tasks["openbookqa"]["batch_size"] == 4


@pytest.mark.parametrize(("quantize", "taken"), [("int8", [0, 1, 1]), ("int4", [0, 0, 1])])
def test_answers_of_int4_are_kept_for_their_batch_size_alone(rigged, data, tmp_path, quantize, taken):
    engine, said = rigged(), []
    engine.settings = {"quantize": quantize}
    for number, size in enumerate((None, 2, 2)):
        said.clear()
        run(engine, data, tmp_path, batch_size=size, names=["triviaqa"], shots=[0], say=said.append)
        assert sum("taken from" in text for text in said) == taken[number]


def test_the_default_folder_names_what_is_not_the_suites(tiny_engine, data, tmp_path):
    folder = tmp_path / "model"
    tiny_engine.backend.model.save_pretrained(folder)
    tiny_engine.tokenizer.save_pretrained(folder)
    words = ["eval", str(folder), "--tasks", "openbookqa", "--data-root", str(data)]
    for more in ([], ["--limit", "2"]):
        CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
    assert sorted(path.name for path in folder.glob("eval-*")) == [
        "eval-base-openbookqa",
        "eval-base-openbookqa-limit2",
    ]


def test_the_guides_numbers_of_examples_are_kept():
    shots = {name: read_task(name)["metadata"]["shots"] for name in list_tasks()}
    assert {name for name, count in shots.items() if count == 5} == {
        "arc_easy", "arc_challenge", "piqa", "mmlu", "triviaqa"
    }  # fmt: skip
    assert choose_shots("instruct", "mmlu", None) == [0] and choose_shots("instruct", "bbh", None) == [3]
    assert choose_shots("base", "mmlu", None) == [5] and choose_shots("instruct", "mmlu", [2, 0]) == [0, 2]
    assert choose_shots("instruct", "ifeval", [0, 5]) == [0]


@pytest.mark.parametrize(("shots", "others"), [([5], "5"), ([0, 5], "5"), ([2, 5], "2, 5")])
def test_examples_that_a_task_cannot_have_are_told(data, shots, others):
    assert plan_suite("instruct", data, ["ifeval", "arc_easy"], shots=shots).notes == [
        f"ifeval takes no examples: it was asked with 0, not with {others}"
    ]
    assert plan_suite("instruct", data, ["ifeval", "arc_easy"], shots=[0]).notes == []


@pytest.mark.parametrize("text", ["", "a", "5,-1", "1.5"])
def test_numbers_of_examples_that_are_none_are_refused(text):
    assert parse_shots("5, 0") == [0, 5] and parse_shots(None) is None
    with pytest.raises(UserError, match="--shots .* such as 0,5"):
        parse_shots(text)


def test_names_that_there_are_not_get_the_near_miss():
    with pytest.raises(UserError, match="did you mean 'hellaswag'"):
        choose_rows("base", ["helaswag"])
    with pytest.raises(UserError, match="did you mean 'instruct'"):
        choose_rows("instuct", None)


def test_a_model_that_does_not_suit_is_told_before_anything_is_computed(rigged, data, tmp_path, monkeypatch):
    engine = rigged()
    monkeypatch.setattr(engine.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match=r"no chat template.*--suite base"):
        run(engine, data, tmp_path, "instruct", names=["piqa"])
    assert run(engine, data, tmp_path, "instruct", names=["piqa"], chat=False, shots=[0])["rows"]
    monkeypatch.undo()
    engine.backend.vocab_size = 40
    with pytest.raises(UserError, match="tokenizer has .* tokens.*has 40"):
        run(engine, data, tmp_path, names=["openbookqa"])


def test_the_command_names_the_nearest_task_before_it_opens_a_model():
    found = CliRunner().invoke(app, ["eval", "no-such-model", "--tasks", "winogrand"])
    assert "did you mean 'winogrande'" in str(found.exception)


def test_a_checkpoint_is_scored_by_the_fast_engine_and_as_on_pytorch(tiny_engine, data, tmp_path):
    folder = tmp_path / "model"
    tiny_engine.backend.model.save_pretrained(folder)
    tiny_engine.tokenizer.save_pretrained(folder)
    words = [
        "eval",
        str(folder),
        "--tasks",
        "openbookqa",
        "--data-root",
        str(data),
        "--output-dir",
        str(tmp_path / "f"),
        "--check-with-hf",
    ]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "Check with plain transformers, openbookqa, 0-shot: 4 of 4 items" in done.output
    assert "Exporting" in done.output and " on ONNX Runtime" in (tmp_path / "f" / "results.md").read_text()
    fast = json.loads((tmp_path / "f" / "results.json").read_text())
    slow = run(tiny_engine, data, tmp_path, names=["openbookqa"])
    assert (fast["engine"], slow["engine"]) == ("ONNX Runtime", "PyTorch")
    assert fast["rows"][0]["score"] == slow["rows"][0]["score"]
