"""Suites on tiny data made here: what they ask, what they report, how they go on, and what they refuse."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation import suites
from small_doge.evaluation.score_tables import write_html, write_markdown
from small_doge.evaluation.statistics import average, estimate
from small_doge.evaluation.suites import SUITES, choose_rows, default_shots, run_suite
from small_doge.evaluation.task_files import list_tasks, load_task, read_task
from small_doge.evaluation.tasks.scorers import match_alias, match_exactly, verify_value
from small_doge.utils.errors import UserError


SHARED = Path(__file__).parents[4] / "shared" / "data"
QUESTIONS = [("Who reads", "Ada"), ("Who sings", "Bo"), ("Who runs", "Cy"), ("Who sleeps", "Di")]
NAMES = [name for _, name in QUESTIONS]


def write_lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def choice_rows():
    return [{"id": f"q{i}", "question": q, "choices": NAMES, "answer": i} for i, (q, _) in enumerate(QUESTIONS)]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = choice_rows()
    for name in ("arc_easy", "arc_challenge", "openbookqa", "piqa"):
        write_lines(folder / f"{name}_val.jsonl.gz", rows)
    write_lines(folder / "hellaswag_val.jsonl", [{**row, "context": row["question"]} for row in rows])
    subject = [{**row, "subject": "high_school"} for row in rows]
    write_lines(folder / "mmlu_test_1000.jsonl.gz", subject)
    write_lines(folder / "mmlu_dev.jsonl.gz", subject * 2)
    prefix = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in [*QUESTIONS, QUESTIONS[0]])
    write_lines(
        folder / "fewshot_olmes.jsonl.gz",
        [{"task": n, "form": "rc", "prefix": prefix} for n in ("arc_easy", "arc_challenge", "piqa", "winogrande")],
    )
    sentences = [{"id": f"w{i}", "question": "_ reads more.", "choices": ["Ada", "Bo"], "answer": i} for i in (0, 1)]
    write_lines(folder / "winogrande_val.jsonl.gz", sentences)
    trivia = [
        {"id": f"t{i}", "question": q, "answer": a, "aliases": [f"The {a}"]} for i, (q, a) in enumerate(QUESTIONS)
    ]
    write_lines(folder / "triviaqa_500.jsonl.gz", trivia)
    bbh = [{"id": "b0", "task": "sums", "input": "1 + 1 is", "target": "2", "choices": None}]
    write_lines(folder / "bbh_3.jsonl.gz", bbh)
    thought = "".join(f"\n\nQ: {n} + 1 is\nA: Let's think.\nSo the answer is {n + 1}." for n in range(3))
    write_lines(folder / "bbh_3_cot_prompts.jsonl.gz", [{"task": "sums", "cot_prompt": f"Add.{thought}"}])
    write_lines(folder / "gsm8k_test.jsonl.gz", [{"id": "g0", "question": "1 + 1?", "final": "2"}])
    return folder


def run(engine, data, tmp_path, suite="base", **how):
    return run_suite(engine, "rigged", suite, data, tmp_path / "out", **how)


def test_a_model_that_knows_the_answers_has_them_all_right(rigged, data, tmp_path):
    engine = rigged(*(f"Question: {q}\nAnswer: {a}" for q, a in QUESTIONS))
    (row,) = run(engine, data, tmp_path, names=["arc"], shots=0)["rows"]
    assert (row["score"], row["n"], row["chance"], row["tasks"]) == (1.0, 8, 0.25, ["arc_easy", "arc_challenge"])
    assert row["above_chance"] and not row["covers_chance"]


def test_a_model_that_always_takes_the_first_choice_is_at_chance(rigged, data, tmp_path):
    engine = rigged(*(f"Question: {q}\nAnswer: {NAMES[0]}" for q, _ in QUESTIONS))
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
    (row,) = run(engine, data, tmp_path, names=["triviaqa"], shots=1, batch_size=1)["rows"]
    assert row["n"] == 3 and row["score"] == pytest.approx(1 / 3)


def test_every_suite_runs_as_a_whole(rigged, data, tmp_path):
    for suite, rows in SUITES.items():
        engine = rigged()
        shots = None if suite != "base" else 0
        result = run(engine, data, tmp_path, suite, shots=shots, limit=1, batch_size=4)
        assert [row["row"] for row in result["rows"]] == list(rows)
        assert all(row["n"] >= 1 and row["task_hashes"] and row["prompt_hashes"] for row in result["rows"])
        assert bool(result["chat_template_hash"]) == (suite != "base")
        assert {"lm-eval", "torch"} <= set(result["versions"])
        assert "first 1 items" in write_markdown(result)


def test_a_killed_run_goes_on_after_its_last_whole_task(rigged, data, tmp_path, monkeypatch):
    engine, asked, real = rigged(), [], suites.run_task

    def fail_at_second(lm, task, chat):
        asked.append(task.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(lm, task, chat)

    monkeypatch.setattr(suites, "run_task", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(engine, data, tmp_path, names=["openbookqa", "hellaswag"])
    first = run(engine, data, tmp_path, names=["openbookqa", "hellaswag"])
    assert asked == ["openbookqa", "hellaswag", "hellaswag"]
    assert run(engine, data, tmp_path, names=["openbookqa", "hellaswag"]) == first and len(asked) == 3
    run(engine, data, tmp_path, names=["openbookqa"], limit=2)
    assert asked[3:] == ["openbookqa"]  # other items, so it is another run


def test_examples_stand_before_each_item_and_are_of_its_kind(data):
    arc, mmlu, bbh = (load_task(name, data) for name in ("arc_easy", "mmlu", "bbh"))
    assert arc.shots == mmlu.shots == 5 and bbh.shots == 3
    assert arc.rows[0]["shots"].count("Answer:") == mmlu.rows[0]["shots"].count("Answer:") == 5
    assert bbh.rows[0]["shots"].startswith("Add.\n\nQ: 0 + 1 is\nA: 1\n\n") and "think" not in bbh.rows[0]["shots"]
    assert load_task("arc_easy", data, shots=2).rows[0]["shots"].count("Answer:") == 2
    assert load_task("arc_easy", data, shots=2).task_hash != arc.task_hash
    with pytest.raises(UserError, match="has 5 examples"):
        load_task("arc_easy", data, shots=6)


def test_the_guides_numbers_of_examples_are_kept():
    shots = {name: read_task(name)["metadata"]["shots"] for name in list_tasks()}
    assert {name for name, count in shots.items() if count == 5} == {
        "arc_easy", "arc_challenge", "piqa", "mmlu", "triviaqa"
    }  # fmt: skip
    assert default_shots("instruct", "mmlu", None) == 0 and default_shots("instruct", "bbh", None) is None
    assert default_shots("base", "mmlu", None) is None and default_shots("instruct", "mmlu", 2) == 2


def test_bad_input_is_told_with_the_remedy(rigged, data, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="did you mean 'hellaswag'"):
        choose_rows("base", ["helaswag"])
    with pytest.raises(UserError, match="did you mean 'instruct'"):
        choose_rows("instuct", None)
    with pytest.raises(UserError, match=r"needs piqa_val.jsonl.gz.*--data-root.*question.*from: baber/piqa"):
        load_task("piqa", tmp_path)
    write_lines(data / "piqa_val.jsonl.gz", [{"id": 1, "goal": "x", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(UserError, match="line 1: task piqa needs question too; the line has id, goal"):
        load_task("piqa", data)
    write_lines(data / "piqa_val.jsonl.gz", [{"id": 1, "question": "x", "choices": ["a", "b"], "answer": 2}])
    with pytest.raises(UserError, match="answer 2 must be the place"):
        load_task("piqa", data)
    (data / "piqa_val.jsonl.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(UserError, match="fetch it again"):
        load_task("piqa", data)
    engine = rigged()
    monkeypatch.setattr(engine.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match=r"no chat template.*--suite base"):
        run(engine, data, tmp_path, "instruct")
    monkeypatch.undo()
    engine.backend.vocab_size = 40
    with pytest.raises(UserError, match="another model's"):
        run(engine, data, tmp_path, names=["openbookqa"])


def test_scorers_match_whole_answers():
    doc = {"answer": "Onion", "aliases": ["The bulb-onion"], "target": "(B)", "final": "18"}
    assert match_alias(doc, [" the onion!\nQuestion"])["exact_match"] == 1
    assert match_alias(doc, [" onions"])["exact_match"] == match_alias(doc, [""])["exact_match"] == 0
    assert match_exactly(doc, [" (B)\n"])["exact_match"] == 1 and match_exactly(doc, ["(B) 1"])["exact_match"] == 0
    assert verify_value(doc, ["<think>17</think>The answer is 18."])["exact_match"] == 1
    assert verify_value(doc, ["118"])["exact_match"] == verify_value(doc, [""])["exact_match"] == 0


def test_an_interval_covers_chance_where_guessing_explains_the_score():
    few, many = (estimate([1.0] * (3 * k) + [0.0] * (7 * k), [0.25] * (10 * k)) for k in (1, 100))
    assert few.covers_chance and not few.says_something
    assert many.says_something and not many.covers_chance
    assert estimate([0.0] * 50, [0.0] * 50).covers_chance
    assert average([many, many]).stderr == pytest.approx(many.stderr / 2**0.5)


def test_the_command_names_the_nearest_task_before_it_opens_a_model():
    found = CliRunner().invoke(app, ["eval", "no-such-model", "--tasks", "winogrand"])
    assert "did you mean 'winogrande'" in str(found.exception)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_shared_files_have_the_form_that_the_tasks_need():
    for name in list_tasks():
        task = load_task(name, SHARED)
        assert len(task.rows) >= 299 and len(task.chances()) == len(task.rows), name
