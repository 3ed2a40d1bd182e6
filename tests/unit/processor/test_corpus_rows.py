"""Chats, preferences and problems: right, and never what is held out."""

import re

import pytest

from small_doge.processor.corpus import KINDS, World, held_out_questions, iterate_documents
from small_doge.processor.corpus.questions import QUESTION_FORMS
from small_doge.processor.corpus.random_source import is_held_out, is_held_out_sum
from small_doge.processor.row_schemas import iterate_texts, read_conversation, read_preference, read_problem


ROW_KINDS = ("chat", "preference", "problem")


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_rows_are_the_same_whoever_makes_them_and_in_whatever_order(kind):
    assert kind in KINDS
    assert list(iterate_documents(kind, 30))[10:] == list(iterate_documents(kind, 30, start=10))


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_no_row_asks_what_is_held_out(kind):
    forbidden = {question.question for question in held_out_questions(2000)}
    forbidden |= {
        form.format(name=name)
        for name in World.of(0).people
        for fact, forms in QUESTION_FORMS.items()
        if is_held_out("fact", name, fact)
        for form in forms
    }
    for row in iterate_documents(kind, 1500):
        texts = list(iterate_texts(row)) or [row["question"]]
        assert not set(texts) & forbidden
        if kind != "preference":  # its rejected answers are wrong on purpose
            for a, b in re.findall(r"(?<![+\d] )\b(\d+) \+ (\d+) =", " ".join(texts)):
                assert not is_held_out_sum(int(a), int(b)), (a, b)


def test_sums_of_chats_and_problems_are_right():
    for kind in ("chat", "problem"):
        for row in iterate_documents(kind, 500):
            for a, b, c in re.findall(r"\b(\d+) \+ (\d+) = (\d+)", " ".join(iterate_texts(row))):
                assert int(a) + int(b) == int(c)


def test_problems_end_in_the_number_that_is_verified():
    for row in iterate_documents("problem", 300):
        assert read_problem(row)["solution"] == row["final"] == re.findall(r"\d+", row["rationale"])[-1]


def test_preferences_have_two_different_answers_and_chats_end_with_one():
    rejected = {read_preference(row)["rejected"][0]["content"] for row in iterate_documents("preference", 300)}
    assert len(rejected) > 100
    assert all(read_conversation(row)[-1]["role"] == "assistant" for row in iterate_documents("chat", 300))
