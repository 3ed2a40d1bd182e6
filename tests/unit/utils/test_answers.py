"""Answers: what is read as a value, and what is equal."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.utils.answers import is_right, parse_answer, split_thought


TAGS = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("12", "12"),
        ("It is 12.", "12"),
        ("5 + 7 = 12", "12"),
        ("-3", "-3"),
        ("0.5", "1/2"),
        (r"$\frac{1}{2}$", "0.5"),
        (r"so \boxed{42}", "42"),
        ("1,234 apples", "1234"),
        ("#### 245", "245"),
    ],
)
def test_the_same_value_is_right_however_it_is_written(answer, reference):
    assert is_right(answer, reference)


@pytest.mark.parametrize("answer", ["13", "", "twelve", "I do not know.", "-12", "1 2", "12.5"])
def test_another_value_or_none_is_wrong(answer):
    assert not is_right(answer, "12")


@pytest.mark.parametrize("reference", ["", "yes", "because it is so"])
def test_a_reference_without_a_value_is_refused(reference):
    assert not parse_answer(reference)
    with pytest.raises(ValueError, match="states no value"):
        is_right("12", reference)


@settings(deadline=None)  # the first formula takes a while to read
@given(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
def test_whole_numbers_are_right_when_they_are_equal_and_only_then(a, b):
    assert is_right(f"The result is {a}.", str(b)) == (a == b)


def test_what_would_never_end_is_given_up():
    assert not is_right("9**9**9**9", "12")


def test_answers_are_read_in_any_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(is_right("the answer is 77", "77")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_thought_is_told_from_the_answer():
    assert split_thought("<think>a</think>b", TAGS) == ("a", "b")
    assert split_thought("b", TAGS) == (None, "b")
    assert split_thought("<think>never closed 12", TAGS) == ("never closed 12", "")
    assert split_thought("a</think>b", TAGS) == ("a", "b")
