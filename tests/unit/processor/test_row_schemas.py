from decimal import Decimal

import numpy as np
import pytest

from small_doge.processor.messages import RowError
from small_doge.processor.row_schemas import (
    drop_thought_field,
    find_texts,
    has_known_schema,
    iterate_texts,
    mark_thought,
    read_conversation,
    read_preference,
    read_problem,
)


def turns(question="Hi", answer="Hello"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns()},
        {"conversation": turns()},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'},
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]},
        {"prompt": "Hi", "response": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"problem": "Hi", "solution": "Hello"},
        {"question": "Hi", "answer": "Hello"},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {"prompt": "Hi", "chosen": turns(), "rejected": turns(answer="No")},
        {"chosen": turns(), "rejected": turns(answer="No")},
    ],
)
def test_every_usual_form_becomes_the_same_conversation(row):
    assert has_known_schema(row)
    assert read_conversation(row) == turns()
    assert list(iterate_texts(row)) == ["Hi", "Hello"]


def test_alpaca_rows_join_instruction_and_input_and_keep_history():
    row = {"instruction": "Add", "input": "1, 2", "output": "3", "history": [["a", "b"]], "system": "Be brief."}
    messages = read_conversation(row)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[3]["content"] == "Add\n\n1, 2"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": 1}, "no conversation: its fields are a"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "Hello"}, "messages is text, not messages"),
        ({"messages": ["Hello"]}, "a message is str"),
        ({"messages": [{"content": "x"}]}, "a message has no role"),
        ({"messages": [{"role": "user", "content": None}]}, "the content of a message of the user is null"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer of the assistant"),
        ({"messages": turns(answer=" ")}, "an answer of the assistant is empty"),
        ({"prompt": "Hi", "completion": ""}, "completion is empty"),
        ({"prompt": "\ud800", "completion": "x"}, "not valid Unicode"),
    ],
)
def test_a_row_without_a_conversation_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        read_conversation(row)


def test_preferences_are_split_into_prompt_and_answers():
    expected = {"prompt": turns()[:1], "chosen": turns()[1:], "rejected": turns(answer="No")[1:]}
    assert read_preference({"chosen": turns(), "rejected": turns(answer="No")}) == expected
    assert read_preference({"prompt": "Hi", "chosen": turns(), "rejected": turns(answer="No")}) == expected
    assert read_preference({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "a"}, "rejected is missing"),
        ({"prompt": "Hi", "chosen": "a", "rejected": None}, "rejected is null"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"prompt": "Hi", "chosen": "a", "rejected": " "}, "rejected is empty"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": "Hi", "chosen": "a\ud800", "rejected": "b"}, "chosen is not valid Unicode"),
        ({"chosen": turns(), "rejected": turns("Bye", "No")}, "the answers share no turn of the user"),
        ({"prompt": "Hi", "chosen": turns(), "rejected": turns("Bye", "No")}, "chosen holds a turn of the user"),
        ({"prompt": "Hi", "chosen": turns() + turns("And?", "a"), "rejected": turns()}, "a turn of the user"),
        (
            {"prompt": "Hi", "chosen": turns("Bye"), "rejected": turns("Bye", "No")},
            "prompt is not what the answers share",
        ),
    ],
)
def test_a_row_that_is_no_preference_says_why(row, reason):
    with pytest.raises(RowError, match=reason):
        read_preference(row)


def test_problems_take_the_shortest_statement_of_the_result():
    row = {"question": "1 + 1?", "answer": "So it is 2\n#### 2", "rationale": "So it is 2", "final": "2"}
    assert read_problem(row) == {"prompt": [{"role": "user", "content": "1 + 1?"}], "solution": "2"}
    assert read_problem({"problem": "x", "solution": "long", "answer": 3})["solution"] == "3"


@pytest.mark.parametrize(
    ("fields", "learnt"),
    [
        ({"solution": "7 - 1 is 6", "answer": "6"}, "7 - 1 is 6"),
        ({"answer": "7 - 1 is 6\n#### 6", "final": "6"}, "7 - 1 is 6\n#### 6"),
        ({"rationale": "I subtract.", "answer": "I subtract.\n#### 6", "final": "6"}, "6"),
        ({"thinking": "Hm.", "solution": "7 - 1 is 6", "answer": "6"}, "7 - 1 is 6"),
        ({"answer": "6"}, "6"),
    ],
)
def test_the_worked_solution_is_learnt_where_a_result_stands_beside_it(fields, learnt):
    assert read_conversation({"problem": "7 - 1?", **fields})[-1]["content"] == learnt
    with pytest.raises(RowError, match="to verify against"):
        read_problem({"problem": "x"})


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>\nI add.\n</think>\n\nIt is 2."},
        {"content": "<thinking>I add.</thinking> It is 2."},
        {
            "content": "<|begin_of_thought|>\n\nI add.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nIt is 2.\n\n<|end_of_solution|>"
        },
        {"content": "It is 2.", "reasoning_content": "I add."},
    ],
)
def test_thoughts_of_every_public_form_go_between_the_tags_of_the_setting(message):
    marked = mark_thought({"role": "assistant", **message}, ("<a>", "</a>"))
    assert marked == {"role": "assistant", "content": "<a>\nI add.\n</a>\n\nIt is 2."}


def test_without_the_template_a_thought_beside_the_answer_stands_before_it():
    message = {"role": "assistant", "content": "2", "reasoning_content": "I add."}
    assert drop_thought_field(message)["content"] == "I add.\n2"
    plain = {"role": "assistant", "content": "2"}
    assert drop_thought_field(plain) == plain == mark_thought(plain, ("<a>", "</a>"))


SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "system": "Be kind.", "chosen": "Hello", "rejected": "No"},
        {"prompt": [SYSTEM, *turns()[:1]], "chosen": turns()[1:], "rejected": turns(answer="No")[1:]},
        {"prompt": "Hi", "system": "Be kind.", "chosen": turns(), "rejected": turns(answer="No")},
        {"prompt": [SYSTEM, *turns()[:1]], "chosen": turns(), "rejected": turns(answer="No")},
        {"prompt": "Hi", "chosen": [SYSTEM, *turns()], "rejected": [SYSTEM, *turns(answer="No")]},
        {"system": "Be kind.", "chosen": turns(), "rejected": turns(answer="No")},
        {"system_prompt": "Be kind.", "question": "Hi", "chosen": "Hello", "rejected": "No"},
        {"conversations": [SYSTEM, *turns()[:1]], "chosen": turns()[1], "rejected": turns(answer="No")[1]},
        {"messages": [SYSTEM, *turns()], "chosen": turns()[1:], "rejected": turns(answer="No")[1:]},
    ],
)
def test_a_preference_keeps_its_system_prompt_and_its_question(row):
    expected = {"prompt": [SYSTEM, *turns()[:1]], "chosen": turns()[1:], "rejected": turns(answer="No")[1:]}
    assert read_preference(row) == expected


def test_turns_that_both_answers_share_go_on_from_the_prompt():
    more = [{"role": "assistant", "content": "And you?"}, {"role": "user", "content": "Well"}]
    row = {"prompt": "Hi", "chosen": more + turns()[1:], "rejected": more + turns(answer="No")[1:]}
    assert read_preference(row)["prompt"] == turns()[:1] + more
    last = {
        "prompt": turns()[:1] + more,
        "chosen": more[1:] + turns()[1:],
        "rejected": more[1:] + turns("x", "No")[1:],
    }
    assert read_preference(last)["prompt"] == turns()[:1] + more
    whole = {"prompt": "Well", "chosen": turns("Hi") + turns("Well"), "rejected": turns("Hi") + turns("Well", "No")}
    assert read_preference(whole)["prompt"] == turns("Hi") + turns("Well")[:1]


@pytest.mark.parametrize(
    "extra",
    [
        {"messages": []},
        {"messages": None, "conversation": ""},
        {"input": " "},
        {"input": None, "history": []},
        {"history": [["", ""], None]},
        {"system": "", "system_prompt": None},
        {"completion": " ", "response": None},
        {"chosen": None, "rejected": None},
        {"chosen": "", "rejected": []},
        {"tools": "", "thinking": None},
    ],
)
def test_empty_fields_beside_filled_ones_are_absent(extra):
    assert read_conversation({"instruction": "Hi", "output": "Hello", **extra}) == turns()
    assert read_conversation({**extra, "instruction": "", "prompt": "Hi", "output": "Hello"}) == turns()
    assert read_conversation({**extra, "messages": [], "conversations": turns()}) == turns()


@pytest.mark.parametrize(
    "history",
    [
        [["a", "b"]],
        [("a", "b")],
        '[["a", "b"]]',
        turns("a", "b"),
        [{"user": "a", "assistant": "b"}],
        [{"instruction": "a", "output": "b", "other": None}],
        [["a", "b"], ["", ""], [None, None]],
    ],
)
def test_history_of_every_form_stands_before_the_question(history):
    expected = [SYSTEM, *turns("a", "b"), *turns()]
    for row in (
        {"instruction": "Hi", "output": "Hello", "system": "Be kind."},
        {"prompt": [SYSTEM, *turns()[:1]], "completion": "Hello"},
        {"messages": [SYSTEM, *turns()]},
    ):
        assert read_conversation({**row, "history": history}) == expected
    assert read_problem({"problem": "Hi", "final": 1, "history": history})["prompt"] == [*expected[1:3], expected[3]]


@pytest.mark.parametrize("history", [[["q", None]], [["q"]], ["q", "a"], 3, "words", [["q", "a", "b"]], [{"q": "a"}]])
def test_a_history_that_can_not_be_read_is_a_reason(history):
    with pytest.raises(RowError, match="history"):
        read_conversation({"instruction": "Hi", "output": "Hello", "history": history})


def test_a_system_field_and_another_system_turn_are_both_kept():
    row = {"system": "Be brief.", "messages": [SYSTEM, *turns()]}
    assert read_conversation(row)[0]["content"] == "Be brief.\n\nBe kind."
    assert read_conversation({**row, "system": "Be kind."})[0] == SYSTEM


def test_a_preference_keeps_every_system_prompt_beside_its_turns():
    chosen, rejected = [SYSTEM, *turns()], [SYSTEM, *turns(answer="No")]
    for prompt in ("Hi", turns("Hi", "Well?") + turns()[:1]):
        row = {"system": "Be brief.", "prompt": prompt, "chosen": chosen, "rejected": rejected}
        assert read_preference(row)["prompt"][0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    row = {"prompt": "Hi", "chosen": [SYSTEM, turns()[1]], "rejected": [SYSTEM, turns(answer="No")[1]]}
    assert read_preference(row)["prompt"] == [SYSTEM, *turns()[:1]]


def test_an_alpaca_row_may_ask_by_its_input_alone():
    assert read_conversation({"instruction": "", "input": "Hi", "output": "Hello"}) == turns()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.0, "1234567"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (123456789012345678901234567890, "123456789012345678901234567890"),
        (1e300, "1E+300"),
        (-0.5, "-0.5"),
        (Decimal("12.50"), "12.50"),
        (np.float32(0.1), "0.1"),
        (np.int64(7), "7"),
        (True, "true"),
        (np.bool_(False), "false"),
    ],
)
def test_values_keep_their_digits_in_every_field(value, text):
    assert read_conversation({"question": "Hi", "answer": value})[-1]["content"] == text
    assert read_conversation({"question": value, "answer": "x"})[0]["content"] == text
    assert read_conversation({"messages": turns(value, value)}) == turns(text, text)
    assert read_conversation({"instruction": "a", "input": value, "output": "x"})[0]["content"] == f"a\n\n{text}"
    assert read_conversation({"prompt": "a", "output": "x", "history": [[value, value]]})[:2] == turns(text, text)
    assert read_preference({"prompt": "a", "chosen": value, "rejected": "x"})["chosen"][0]["content"] == text
    assert read_problem({"question": "a", "answer": value})["solution"] == text


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), 1j, pytest.param(10**5000, id="huge")]
)
def test_what_is_no_finite_number_is_a_reason(value):
    with pytest.raises(RowError, match="the answer is"):
        read_conversation({"question": "Hi", "answer": value})


def test_unreadable_rows_say_what_is_wrong_and_readable_ones_are_texts():
    assert find_texts({"text": "a", "messages": []}) == ["a"]
    assert find_texts({"text": "", "prompt": "a", "thinking": "t", "output": "b"}) == ["a", "t", "b"]
    for row, reason in (({"text": None}, "text is null"), ({"a": 1}, "no field"), ({"text": "\ud800"}, "Unicode")):
        with pytest.raises(RowError, match=reason):
            find_texts(row)
