"""Task files: what they ask, as the harness asks it; the files that they read, and what is wrong with bad ones."""

import gzip
import json
from pathlib import Path

import lm_eval
import pytest
import yaml
from lm_eval.utils import apply_template
from tests.unit.evaluation.conftest import write_lines

from small_doge.evaluation import bbh
from small_doge.evaluation.task_data import MissingDataError
from small_doge.evaluation.task_files import list_tasks, load_task, read_task
from small_doge.evaluation.tasks.scorers import match_alias, match_exactly, verify_value
from small_doge.utils.errors import UserError


SHARED = Path(__file__).parents[4] / "shared" / "data"
HARNESS = Path(lm_eval.__file__).parent / "tasks"


class _Plain(yaml.SafeLoader):
    """Reads the harness's task files as they are."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")


def read_harness(path):
    return yaml.load((HARNESS / path).read_text(), _Plain)


@pytest.mark.parametrize(
    ("name", "file", "row", "theirs"),
    [
        ("piqa", "piqa/piqa.yaml", {"question": "Cut it"}, {"goal": "Cut it"}),
        ("openbookqa", "openbookqa/openbookqa.yaml", {"question": "Sand is"}, {"question_stem": "Sand is"}),
        ("arc_easy", "arc/arc_easy.yaml", {"question": "Why?"}, {"question": "Why?"}),
    ],
)
def test_questions_are_asked_as_the_harness_asks_them(name, file, row, theirs):
    given = read_harness(file)["doc_to_text"]
    expected = theirs[given] if given in theirs else apply_template(given, theirs)
    assert apply_template(read_task(name)["doc_to_text"], {**row, "shots": ""}) == expected


def test_examples_stand_before_each_item_and_are_of_its_kind(data):
    arc, mmlu, subtasks = (load_task(name, data) for name in ("arc_easy", "mmlu", "bbh"))
    assert arc.shots == mmlu.shots == 5 and subtasks.shots == 3
    assert arc.rows[0]["shots"].count("Answer:") == mmlu.rows[0]["shots"].count("Answer:") == 5
    assert mmlu.rows[0]["shots"].startswith("The following are questions about high school.\nQuestion: Who reads\n")
    assert subtasks.rows[0]["shots"].startswith("Add.\n\nQ: 0 + 1 is\nA: 1\n\n")
    assert "think" not in subtasks.rows[0]["shots"]
    assert load_task("arc_easy", data, shots=2).rows[0]["shots"].count("Answer:") == 2
    assert load_task("arc_easy", data, shots=2).task_hash != arc.task_hash
    with pytest.raises(UserError, match="has 5 examples"):
        load_task("arc_easy", data, shots=6)


def test_examples_have_the_form_of_the_questions(data):
    assert load_task("piqa", data, shots=1).rows[0]["shots"] == "Question: Who reads\nAnswer: Ada\n\n"
    assert load_task("openbookqa", data, shots=1).rows[0]["shots"] == "Who reads Ada\n\n"
    gsm = [{"id": i, "question": "1 + 1?", "rationale": "One more.", "final": "2"} for i in range(2)]
    write_lines(data / "gsm8k_test.jsonl.gz", gsm)
    assert load_task("gsm8k", data, shots=1).rows[0]["shots"] == "1 + 1?\nOne more.\nThe answer is 2.\n\n"


def test_problems_are_read_in_the_columns_in_which_they_are_published(data):
    (row,) = load_task("svamp", data).rows
    assert row["final"] == "4" and row["id"] == "chal-1"
    half, who = load_task("math", data).rows
    assert half["final"] == r"\frac{1}{2}" and half["id"] == "math-0"
    assert load_task("math", data).notes == ["1 of 2 right answers are words, and must be said as whole words"]
    assert verify_value(half, ["It is 0.5."])["exact_match"] == 1 and verify_value(half, ["2"])["exact_match"] == 0
    who["final"] = "Evelyn"
    assert verify_value(who, ["Evelyn is."])["exact_match"] == 1 and verify_value(who, ["Evelyns"])["exact_match"] == 0
    write_lines(data / "math_test.jsonl.gz", [{"problem": "Half?", "answer": "0.5", "unique_id": "x/1.json"}])
    assert load_task("math", data).rows[0]["final"] == "0.5" and load_task("math", data).rows[0]["id"] == "x/1.json"
    write_lines(data / "math_test.jsonl.gz", [{"problem": "Half?"}])
    with pytest.raises(UserError, match="needs answer or solution"):
        load_task("math", data)


def test_rows_need_no_name_and_are_named_by_their_places(data):
    rows = [{"question": "x", "choices": ["a", "b"], "answer": 0}] * 2
    for file, name in (("piqa_val.jsonl.gz", "piqa"), ("arc_easy_val.jsonl.gz", "arc_easy")):
        write_lines(data / file, rows)
        assert [row["id"] for row in load_task(name, data, 0).rows] == [f"{name}-0", f"{name}-1"]
    assert not [name for name in list_tasks() if "id" in read_task(name)["metadata"]["columns"]]


def test_bad_data_are_told_with_the_remedy(data, tmp_path):
    with pytest.raises(MissingDataError, match=r"needs piqa_val.jsonl.gz.*--data-root.*question.*from: baber/piqa"):
        load_task("piqa", tmp_path)
    path = data / "piqa_val.jsonl.gz"
    for rows, message in (
        ([{"id": 1, "goal": "x", "choices": ["a", "b"], "answer": 0}], "needs question too; the line has id, goal"),
        ([{"id": 1, "question": "x", "choices": ["a", "b"], "answer": 2}], "answer 2 must be the place"),
        ([{"id": 1, "question": "x", "choices": ["a", "b"], "answer": True}], "answer True must be the place"),
        ([{"id": 1, "question": "x", "choices": ["a"], "answer": 0}], "two or more"),
        (["x"], "the line has str"),
        ([], "holds no rows"),
    ):
        write_lines(path, rows)
        with pytest.raises(UserError, match=message):
            load_task("piqa", data)
    whole = gzip.compress(b'{"question": "x"}')
    for damaged in (b"\x1f\x8bbroken", whole[:-9], whole[:10] + b"\xff" + whole[11:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="fetch it again"):
            load_task("piqa", data)
    path.unlink()
    path.with_suffix("").write_text('{"id"')
    with pytest.raises(UserError, match="line 1: no JSON"):
        load_task("piqa", data)


ASKED = {"question": "Who _ reads", "choices": ["Ada", "Bo"], "answer": 0}
RULES = {
    "key": 1,
    "prompt": "Write.",
    "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
}


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("gsm8k", {"question": "1 + 1?", "final": 2}, "final of task gsm8k must be a text, and is 2"),
        ("gsm8k", {"question": None, "final": "2"}, "question .* a text, and is null"),
        (
            "triviaqa",
            {"question": "Who?", "answer": "Ada", "aliases": None},
            "aliases .* a list of texts, and is null",
        ),
        ("triviaqa", {"question": "Who?", "answer": "Ada", "aliases": "Paris"}, 'aliases .* and is "Paris"'),
        ("triviaqa", {"question": "Who?", "answer": "Ada", "aliases": [1]}, "aliases"),
        ("triviaqa", {"question": "Who?", "answer": {"value": "Ada"}, "aliases": []}, "answer .* a text"),
        ("bbh", {"task": "navigate", "input": "Back?", "target": 5}, "target"),
        ("bbh", {"task": "navigate", "input": None, "target": "Yes"}, "input"),
        ("bbh", {"task": ["navigate"], "input": "Back?", "target": "Yes"}, "task of task bbh"),
        ("ifeval", {**RULES, "kwargs": None}, "kwargs .* a list of objects"),
        ("ifeval", {**RULES, "kwargs": [{}, None]}, "kwargs .* a list of objects"),
        ("ifeval", {**RULES, "kwargs": [{}]}, "kwargs has 1 entries for 2 instructions"),
        ("winogrande", {**ASKED, "question": "Ada reads"}, "question .* text after a _"),
        ("winogrande", {**ASKED, "question": "There reads _"}, "question .* text after a _"),
        ("winogrande", {**ASKED, "choices": ["Ada", "Bo", "Cy"]}, "two choices, and the line has 3"),
        ("svamp", {"Body": "1", "Question": "2", "Answer": True}, "Answer .* a number or a text, and is true"),
        ("svamp", {"Body": "1", "Question": "2", "Answer": ["4"]}, "Answer"),
        ("math", {"problem": "Half?", "answer": ["4"]}, "answer of task math must be a number or a text"),
        ("mmlu", {**ASKED, "subject": None}, "subject"),
    ],
)
def test_values_of_a_wrong_type_are_told_with_their_place(data, task, row, message):
    config = read_task(task)
    file = "bbh_3.jsonl.gz" if task == "bbh" else config["dataset_kwargs"]["data_files"]["test"]
    path = data / file if (data / file).is_file() else data / file.removesuffix(".gz")
    rows = load_task(task, data, shots=0).rows
    write_lines(path, [*rows, row])
    with pytest.raises(UserError, match=f"{path.name}, line {len(rows) + 1}: .*{message}"):
        load_task(task, data, shots=0)


@pytest.mark.parametrize(
    ("task", "file", "row", "message"),
    [
        ("arc_easy", "fewshot_olmes.jsonl.gz", {"task": "arc_easy", "form": "rc", "prefix": None}, "row 1: prefix"),
        ("mmlu", "mmlu_dev.jsonl.gz", {**ASKED, "question": None, "subject": "high_school"}, "row 1: question"),
        (
            "mmlu",
            "mmlu_dev.jsonl.gz",
            {"question": "Who?", "subject": "high_school"},
            "row 1: .* needs choices, answer",
        ),
        ("bbh", "bbh_3_cot_prompts.jsonl.gz", {"task": "navigate", "cot_prompt": 1}, "row 1: cot_prompt"),
        ("bbh", "bbh_3_cot_prompts.jsonl.gz", {"task": "navigate"}, "row 1: .* needs cot_prompt"),
        ("arc_easy", "fewshot_olmes.jsonl.gz", "task prefix", "the line has str"),
    ],
)
def test_examples_of_a_wrong_type_are_told_with_their_place(data, task, file, row, message):
    write_lines(data / file, [row])
    with pytest.raises(UserError, match=f"{file}, .*{message}"):
        load_task(task, data, shots=1)


def test_columns_that_no_task_needs_may_hold_anything(data):
    rows = [{**ASKED, "label": 1}, {**ASKED, "label": "one", "kind": [None]}]
    write_lines(data / "piqa_val.jsonl.gz", rows)
    task = load_task("piqa", data, shots=0)
    found = task.config["custom_dataset"]()["test"]
    assert found.column_names == ["question", "choices", "answer", "id", "shots"] and len(found) == 2
    write_lines(data / "svamp_test.jsonl.gz", [{"Body": "1", "Question": "2", "Answer": n} for n in (4.0, "4", 4)])
    assert [row["final"] for row in load_task("svamp", data, shots=0).rows] == ["4"] * 3
    mixed = [{**RULES, "kwargs": [{"n": 1}, {"n": one}]} for one in (1, "one")]
    write_lines(data / "ifeval.jsonl.gz", mixed)
    with pytest.raises(UserError, match="task ifeval: the rows hold values of different types in one place"):
        load_task("ifeval", data)


def test_an_answer_that_is_null_is_no_part_of_an_example(data):
    rows = [{"problem": f"{n}?", "answer": "1", "solution": None} for n in range(2)]
    write_lines(data / "math_test.jsonl.gz", rows)
    assert load_task("math", data, shots=1).rows[0]["shots"] == "0?\n\nThe answer is $1$.\n\n"


# BIG-Bench Hard.


def test_big_bench_hard_is_read_from_a_copy_of_its_repository(tmp_path):
    folder = tmp_path / bbh.REPOSITORY
    for name in ("bbh", "cot-prompts"):
        (folder / name).mkdir(parents=True)
    for task in bbh.TASKS:
        example = {"input": "Which?\nOptions:\n(A) a\n(B) b\n(C) c", "target": "(A)"}
        (folder / "bbh" / f"{task}.json").write_text(json.dumps({"canary": "x", "examples": [example]}))
        shots = "".join(f"\n\nQ: {n}?\nA: Hm. So the answer is ({c})." for n, c in enumerate("ABC"))
        (folder / "cot-prompts" / f"{task}.txt").write_text(f"canary\n-----\nTell.{shots}")
    task = load_task("bbh", tmp_path)
    assert len(task.rows) == len(bbh.TASKS) == 27 and not task.notes
    assert task.rows[0]["shots"] == "Tell.\n\nQ: 0?\nA: (A)\n\nQ: 1?\nA: (B)\n\nQ: 2?\nA: (C)\n\n"
    chances = {row["task"]: bbh.find_chance(row) for row in task.rows}
    assert {chances[name] for name in ("navigate", "web_of_lies", "sports_understanding")} == {0.5}
    assert {chances[name] for name in ("word_sorting", "dyck_languages", "object_counting")} == {None}
    assert chances["snarks"] == 1 / 3
    (folder / "bbh" / "navigate.json").write_text("[]")
    with pytest.raises(UserError, match=r"navigate.json isn't a file of BIG-Bench Hard"):
        load_task("bbh", tmp_path)


def test_subtasks_that_are_missing_or_unknown_are_named(data):
    task = load_task("bbh", data)
    assert task.notes[0].startswith("1 of 27 tasks; missing: boolean_expressions, causal_judgement")
    assert "git clone" in task.notes[0]
    write_lines(data / "bbh_3.jsonl.gz", [{"task": "causal_judgment", "input": "x", "target": "Yes"}])
    assert load_task("bbh", data, shots=0).rows[0]["task"] == "causal_judgement"
    write_lines(data / "bbh_3.jsonl.gz", [{"task": "sums", "input": "x", "target": "Yes"}])
    with pytest.raises(UserError, match="'sums' is none of the 27 tasks"):
        load_task("bbh", data)
    (data / "bbh_3.jsonl.gz").unlink()
    with pytest.raises(MissingDataError, match="git clone"):
        load_task("bbh", data)


def test_rows_of_a_subtask_that_two_files_have_are_counted(data):
    rows = [{"task": name, "input": "x", "target": "1"} for name in ("object_counting", "object_counting", "navigate")]
    write_lines(data / "bbh_more.jsonl", rows)
    task = load_task("bbh", data, shots=0)
    assert [row["task"] for row in task.rows] == ["navigate", "object_counting"] and task.rows[1][
        "input"
    ] == "1 + 1 is"
    assert task.notes[0].startswith("2 rows of ")
    assert task.notes[0].endswith(
        "bbh_more.jsonl were left out, since an earlier file has their tasks: object_counting"
    )


# Scorers.


def test_scorers_match_whole_answers():
    doc = {"answer": "Onion", "aliases": ["The bulb-onion"], "target": "(B)", "final": "18"}
    assert match_alias(doc, [" the onion!\nQuestion"])["exact_match"] == 1
    assert match_alias(doc, [" onions"])["exact_match"] == match_alias(doc, [""])["exact_match"] == 0
    assert match_exactly(doc, [" (B)\n"])["exact_match"] == 1 and match_exactly(doc, ["(B) 1"])["exact_match"] == 0
    assert verify_value(doc, ["<think>17</think>The answer is 18."])["exact_match"] == 1
    assert verify_value(doc, ["118"])["exact_match"] == verify_value(doc, [""])["exact_match"] == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_shared_files_have_the_form_that_the_tasks_need():
    for name in set(list_tasks()) - {"svamp", "math"}:
        task = load_task(name, SHARED, 0)
        assert len(task.rows) >= 100 and len({row["id"] for row in task.rows}) == len(task.rows), name
    limited = load_task("mmlu", SHARED, limit=57)
    assert len({row["subject"] for row in limited.rows}) == 57
