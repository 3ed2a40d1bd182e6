"""Rewards: right, wrong and malformed completions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.trainer.rewards import (
    REWARDS,
    make_accuracy_reward,
    make_format_reward,
    make_length_reward,
    make_rewards,
    make_steps_reward,
    repetition_reward,
)


TAGS = ("<think>", "</think>")
RIGHT = "<think>\nones: 3 + 4 = 7. tens: 20 + 30 = 50. 50 + 7 = 57\n</think>\n\n57"
WRONG = RIGHT.replace("\n\n57", "\n\n58")
UNCLOSED = "<think> 3 + 4 = 57"


def message(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("wrap", [str, message])
def test_accuracy_counts_the_answer_after_the_thought_alone(wrap):
    completions = [wrap(text) for text in (RIGHT, WRONG, UNCLOSED, "57", "It is 57.", "", "no idea", "57</think>58")]
    found = make_accuracy_reward()(completions=completions, solution=["57"] * 8)
    assert found == [1, 0, 0, 1, 1, 0, 0, 0]


def test_a_reference_that_cannot_be_verified_is_an_error_not_a_reward():
    with pytest.raises(ValueError, match="states no value"):
        make_accuracy_reward()(completions=["yes"], solution=["yes"])


def test_special_tokens_are_not_part_of_an_answer():
    assert make_accuracy_reward()(completions=["57<|eot_id|>"], solution=["57"]) == [1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, 1),
        (WRONG, 1),
        ("57", 0),
        (UNCLOSED, 0),
        ("<think></think>57", 0),
        ("<think>a</think>", 0),
        ("well <think>a</think>57", 0),
        ("<think>a</think>b<think>c</think>d", 0),
        ("</think>a<think>b", 0),
    ],
)
def test_format_asks_for_one_thought_and_an_answer_after_it(text, expected):
    assert make_format_reward()(completions=[text]) == [expected]


def test_other_tags_can_be_asked_for():
    (accuracy, form) = make_rewards(["accuracy", "format"], ("[t]", "[/t]"), 10)
    assert accuracy(completions=["[t]1[/t]2"], solution=["2"]) == form(completions=["[t]1[/t]2"]) == [1]
    assert form(completions=[RIGHT]) == [0]


def test_tags_that_look_like_special_tokens_are_kept():
    tags = ("<|begin_of_thought|>", "<|end_of_thought|>")
    completion = RIGHT.replace(TAGS[0], tags[0]).replace(TAGS[1], tags[1]) + "<|eot_id|>"
    wrong = completion.replace("\n\n57", "\n\n<|eot_id|>")
    for reward in make_rewards(["accuracy", "format", "steps"], tags, 10):
        assert reward(completions=[completion], solution=["57"]) == [1]
    for reward in make_rewards(["accuracy", "format"], tags, 10):
        assert reward(completions=[wrong], solution=["57"]) == [0]


def test_length_punishes_the_last_fifth_of_the_room():
    reward = make_length_reward(100)
    assert reward(completion_ids=[[0] * n for n in (1, 80, 90, 100)]) == pytest.approx([0, 0, -0.5, -1])


def test_repetition_is_punished_by_its_share():
    once, again, short = "a b c d e f", "a b c a b c a b c a b c", "a b"
    found = repetition_reward(completions=[once, again, short, ""])
    assert found[0] == found[2] == found[3] == 0 and found[1] == pytest.approx(-(1 - 3 / 10))


def test_steps_are_counted_once_each_and_in_the_thought_alone():
    reward = make_steps_reward()
    assert reward(completions=[RIGHT]) == [1]
    assert reward(completions=["<think>3 + 4 = 7. 3 + 4 = 7. 3 + 4 = 7.</think>7"]) == pytest.approx([1 / 3])
    assert reward(completions=["<think>I like it. It is good.</think>7", "First, 1 = 1. Then 2 = 2."]) == [0, 0]
    assert reward(completions=["<think>1. Read\n2. Think\n- Write</think>7"]) == [1]


@settings(deadline=None)  # the first formula takes a while to read
@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.integers(0, 200))
def test_every_reward_gives_a_number_in_its_range_for_any_text(texts, length):
    ids = [[1] * length] * len(texts)
    for name, make in REWARDS.items():
        found = make(TAGS, 100)(completions=texts, completion_ids=ids, solution=["12"] * len(texts))
        low = -1 if name in ("length", "repetition") else 0
        assert len(found) == len(texts) and all(low <= value <= low + 1 for value in found)


def test_unknown_rewards_are_refused_with_the_near_miss():
    with pytest.raises(ValueError, match=r"acuracy.*accuracy"):
        make_rewards(["acuracy"], TAGS, 10)
    for names in ([], ["format", "format"]):
        with pytest.raises(ValueError, match="at least one reward, and none twice"):
            make_rewards(names, TAGS, 10)
