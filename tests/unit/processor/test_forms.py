import pytest

from small_doge.processor.forms import (
    FormError,
    drop_thought_field,
    has_known_form,
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
    assert has_known_form(row)
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
        ({"messages": []}, "messages holds no messages"),
        ({"messages": "Hello"}, "messages is text, not messages"),
        ({"messages": ["Hello"]}, "a message is str"),
        ({"messages": [{"content": "x"}]}, "a message has no role"),
        ({"messages": [{"role": "user", "content": None}]}, "the content of a message of the user is NoneType"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer of the assistant"),
        ({"messages": turns(answer=" ")}, "an answer of the assistant is empty"),
        ({"prompt": "Hi", "completion": ""}, "the answer is empty"),
        ({"prompt": "\ud800", "completion": "x"}, "not valid Unicode"),
    ],
)
def test_a_row_without_a_conversation_says_why(row, reason):
    with pytest.raises(FormError, match=reason):
        read_conversation(row)


def test_preferences_are_split_into_prompt_and_answers():
    expected = {"prompt": turns()[:1], "chosen": turns()[1:], "rejected": turns(answer="No")[1:]}
    assert read_preference({"chosen": turns(), "rejected": turns(answer="No")}) == expected
    assert read_preference({"prompt": "Hi", "chosen": turns(), "rejected": turns(answer="No")}) == expected
    assert read_preference({"prompt": "Hi", "chosen": "Hello", "rejected": "No"}) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "a"}, "no field 'rejected'"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "are the same"),
        ({"prompt": "Hi", "chosen": "a", "rejected": " "}, "rejected is empty"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
    ],
)
def test_a_row_that_is_no_preference_says_why(row, reason):
    with pytest.raises(FormError, match=reason):
        read_preference(row)


def test_problems_take_the_shortest_statement_of_the_result():
    row = {"question": "1 + 1?", "answer": "So it is 2\n#### 2", "rationale": "So it is 2", "final": "2"}
    assert read_problem(row) == {"prompt": [{"role": "user", "content": "1 + 1?"}], "solution": "2"}
    assert read_problem({"problem": "x", "solution": "long", "answer": 3})["solution"] == "3"
    with pytest.raises(FormError, match="to verify against"):
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
