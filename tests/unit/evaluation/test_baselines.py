"""Chance levels: guesses among choices, and answers that are given blindly where there are none."""

import pytest
from tests.unit.evaluation.conftest import write_lines

from small_doge.evaluation.baselines import COMMON_ANSWER, GUESS, LAST_NUMBER, find_chance_level
from small_doge.evaluation.task_files import load_task


def find(name, data, **how):
    task = load_task(name, data, shots=0, **how)
    level = find_chance_level(task)
    return level, [item[task.metadata["score"]] for item in level.items]


def write_problems(data, pairs):
    rows = [{"id": i, "question": question, "final": final} for i, (question, final) in enumerate(pairs)]
    write_lines(data / "gsm8k_test.jsonl.gz", rows)


def test_of_choices_one_is_guessed(data):
    level, chances = find("openbookqa", data)
    assert chances == [0.25] * 4 and level.scores == {GUESS: 0.25}


def test_the_last_number_of_the_question_solves_what_it_solves(data):
    write_problems(
        data, [("2 pens and 1,200 more, of which 3?", "3"), ("Half of 8.5?", "4"), ("None?", "5"), ("5, 6?", "6")]
    )
    level, chances = find("gsm8k", data)
    assert chances == [1, 0, 0, 1] and level.scores == {LAST_NUMBER: 0.5, COMMON_ANSWER: 0}


def test_the_answer_that_others_have_counts_where_it_is_better_and_an_items_own_does_not(data):
    write_problems(data, [("a?", "7"), ("b?", "7"), ("c?", "7"), ("of 9?", "9"), ("e?", "1")])
    level, chances = find("gsm8k", data)
    assert chances == [1, 1, 1, 0, 0] and level.scores == {LAST_NUMBER: 0.2, COMMON_ANSWER: 0.6}
    _, alone = find("gsm8k", data, limit=1)
    assert alone == [0]


def test_big_bench_hard_is_guessed_where_there_are_choices_and_answered_blindly_elsewhere(data):
    counting = [("2 pens and 3 cups.", "5"), ("1 pen.", "1"), ("4 cups.", "4")]
    sorting = [("b a", "a b"), ("c a", "a c"), ("b a b", "a b")]
    rows = [{"task": "object_counting", "input": question, "target": answer} for question, answer in counting]
    rows += [{"task": "word_sorting", "input": question, "target": answer} for question, answer in sorting]
    rows.append({"task": "navigate", "input": "Back?\nOptions:\n- Yes\n- No", "target": "Yes"})
    write_lines(data / "bbh_3.jsonl.gz", rows)
    level, chances = find("bbh", data)
    assert sorted(chances) == sorted([0, 1, 1, 1, 0, 1, 0.5])
    assert level.scores == {GUESS: 0.5, LAST_NUMBER: pytest.approx(1 / 3), COMMON_ANSWER: pytest.approx(1 / 3)}


def test_repeating_a_question_is_no_answer():
    rows = load_task("demo_problems", None).rows
    judge = load_task("demo_problems", None).config["process_results"]
    assert sum(judge(row, [row["question"]])["exact_match"] for row in rows) == 0


def test_of_instructions_chance_is_what_an_answer_follows_that_ignores_them(data):
    level, chances = find("ifeval", data)
    assert chances == [1, 0] and level.scores == {'the answer "I do not know."': 0.5}
