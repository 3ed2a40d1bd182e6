"""Messages of every public spelling become one form, or a reason."""

import json

import numpy as np
import pytest

from small_doge.processor.messages import RowError, read_messages, read_tools


ARGUMENTS = {"a": 1, "b": "x"}
CALL = {"type": "function", "function": {"name": "add", "arguments": ARGUMENTS}}


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": json.dumps(ARGUMENTS)}},
        {"name": "add", "arguments": ARGUMENTS},
        {"name": "add", "arguments": {**ARGUMENTS, "c": None}},
        {"name": None, "function": {"name": "add", "arguments": {**ARGUMENTS, "c": None}}},
    ],
)
def test_calls_of_functions_have_one_form_and_no_fields_that_parquet_filled_up(call):
    expected = [{"role": "assistant", "content": "", "tool_calls": [CALL]}]
    assert read_messages([{"role": "assistant", "content": None, "tool_calls": [call], "name": None}], "m") == expected
    assert read_messages([{"role": "assistant", "content": "", "tool_calls": json.dumps([call])}], "m") == expected
    assert read_messages([{"from": "function_call", "value": json.dumps(call)}], "m") == expected
    function = call.get("function") or call
    assert read_messages([{"role": "assistant", "content": None, "function_call": function}], "m") == expected


def test_arguments_that_parquet_holds_as_a_map_are_named():
    call = {"name": "add", "arguments": [("a", 1), ("b", "x")]}
    assert read_messages([{"role": "assistant", "tool_calls": [call]}], "m")[0]["tool_calls"] == [CALL]


def test_a_null_in_arguments_of_json_text_was_meant():
    call = {"name": "add", "arguments": '{"a": null}'}
    (message,) = read_messages([{"role": "assistant", "tool_calls": [call]}], "m")
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": None}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"),
        ("User", "user"),
        ("gpt", "assistant"),
        ("developer", "system"),
        ("observation", "tool"),
        ("function", "tool"),
        ("ipython", "tool"),
    ],
)
def test_roles_of_public_data_are_those_of_the_template(name, role):
    expected = [{"role": role, "content": "x"}]
    assert read_messages([{"role": name, "content": "x"}], "m") == expected
    assert read_messages([{"role": None, "from": name, "content": None, "value": "x"}], "m") == expected
    assert read_messages({"role": "", "from": name, "content": "", "value": "x"}, "m") == expected


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image_url": None}],
        [{"text": "a"}, {"type": "input_text", "text": "b"}],
        ["a", "b"],
        np.array(["a", "b"]),
    ],
)
def test_parts_of_text_are_joined(content):
    assert read_messages([{"role": "user", "content": content}], "m") == [{"role": "user", "content": "a\nb"}]
    thought = read_messages([{"role": "assistant", "content": "x", "reasoning_content": content}], "m")
    assert thought[0]["reasoning_content"] == "a\nb"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "narrator", "content": "x"}, "the role 'narrator' is not one of system, user, assistant, tool"),
        ({"role": 3, "content": "x"}, "the role 3"),
        ({"role": None, "content": "x"}, "has no role"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "a part of type 'image_url'"),
        ({"role": "user", "content": [3]}, "a list that holds int"),
        ({"role": "user", "content": {"a": 1}}, "is dict, not text"),
        ({"role": "user", "content": "\ud800"}, "not valid Unicode"),
        ({"role": "assistant", "content": "x", "reasoning_content": [3]}, "a list that holds int"),
        ({"role": "assistant", "content": "x", "reasoning_content": {"a": 1}}, "the thought is dict"),
        ({"role": "assistant", "tool_calls": [{"arguments": {}}]}, "without the name"),
        ({"role": "assistant", "tool_calls": [3]}, "without the name"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x"}]}, "are text, not JSON"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}, "are not named"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": "\ud800"}}]}, "not valid Unicode"),
        ({"from": "function_call", "value": "add(1)"}, "not a call of a function as JSON"),
    ],
)
def test_what_can_not_be_learnt_is_a_reason(turn, reason):
    with pytest.raises(RowError, match=reason):
        read_messages([turn], "m")


def test_tools_lose_the_fields_that_parquet_filled_up():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "int"}}}}
    filled = {"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "int"}, "y": None}}}
    for value in ([filled], filled, json.dumps([tool]), [json.dumps(tool)], np.array([filled])):
        assert read_tools(value) == [tool]
    assert read_tools("") is None and read_tools([]) is None
    for value in ("{", 3, ["x"], [3]):
        with pytest.raises(RowError, match="tools"):
            read_tools(value)
