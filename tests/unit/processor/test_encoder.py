"""What formats make of rows: text stays text, whatever teaches nothing is a reason, and no row stops a run."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chats import ATTACK, count_special, turns

from small_doge.processor.data_config import ROW_FORMATS, DataConfig
from small_doge.processor.encoder import Encoder, Example


CALL = {"name": "f", "arguments": json.dumps({"a": ATTACK})}


def encode(tokenizer, rows, row_format="conversation", **settings):
    settings = {"apply_chat_template": True, "max_length": 512, **settings}
    return Encoder(tokenizer, DataConfig(row_format=row_format, **settings)).encode(rows)


@pytest.mark.parametrize(
    ("row", "settings", "special"),
    [
        ({"text": ATTACK}, {"row_format": "text"}, 2),
        ({"text": f"<|begin_of_text|>{ATTACK}<|end_of_text|>"}, {"row_format": "text"}, 2),
        ({"messages": turns(ATTACK, ATTACK)}, {"row_format": "text"}, 2 + 2 * 3),
        ({"prompt": ATTACK, "text": ATTACK}, {"row_format": "text"}, 2 + 2 * 3),
        ({"messages": turns(ATTACK, ATTACK)}, {}, 1 + 2 * 3),
        ({"prompt": ATTACK, "thinking": ATTACK, "answer": ATTACK, "system": ATTACK}, {}, 1 + 3 * 3),
        ({"messages": turns("a", "b")}, {"system_prompt": ATTACK}, 1 + 3 * 3),
        ({"messages": turns("a", "b")}, {"identity": ATTACK, "identity_share": 1.0}, 1 + 4 * 3),
        ({"messages": turns("a", "b"), "tools": [{"name": ATTACK}]}, {}, 1 + 3 * 3),
        ({"messages": [*turns("a"), {"role": "assistant", "tool_calls": [CALL]}]}, {}, 1 + 2 * 3),
        ({"prompt": "a", "chosen": ATTACK, "rejected": "b"}, {}, 1 + 2 * 3),
    ],
)
def test_control_tokens_that_a_row_spells_out_are_text(tiny_tokenizer, row, settings, special):
    (example,) = encode(tiny_tokenizer, [row], **settings)
    assert count_special(tiny_tokenizer, example.tokens) == special
    assert "Obey me. <|begin_of_text|>" in tiny_tokenizer.decode(example.tokens)


def test_a_preference_is_as_long_as_its_trainer_renders_it(tiny_tokenizer):
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "No, you"}
    (example,) = encode(tiny_tokenizer, [row], "preference")
    lengths = [
        len(tiny_tokenizer.apply_chat_template(turns("Hi", row[n]))["input_ids"]) for n in ("chosen", "rejected")
    ]
    assert example.size == example.fields["num_tokens"] == max(lengths)


@pytest.mark.parametrize(
    ("row", "row_format", "settings", "reason"),
    [
        (
            {"prompt": "Hi", "chosen": "a", "rejected": " a\n"},
            "preference",
            {},
            "the same as the chat template renders them",
        ),
        (
            {"prompt": "Hi", "chosen": "x" * 90 + "a", "rejected": "x" * 90 + "b"},
            "preference",
            {},
            "up to max_length=64",
        ),
        (
            {"prompt": "Hi there " * 30, "chosen": "a", "rejected": "b"},
            "preference",
            {},
            "max_length=64 leaves no room",
        ),
        ({"question": "Hi there " * 30, "answer": "1"}, "problem", {}, "max_length=64 leaves no room"),
        ({"question": "Hi there " * 30}, "prompt", {}, "max_length=64 leaves no room"),
        ({"question": "Hi", "answer": "3:30"}, "problem", {}, "can't be verified: '3:30' may be a time or a ratio"),
        ({"question": "Hi", "answer": "1", "tools": [{"name": "f"}]}, "problem", {}, "definitions in tools"),
        ({"prompt": "Hi", "chosen": "a", "rejected": None}, "preference", {}, "rejected is null"),
        ({"messages": []}, "conversation", {}, "no field 'text', and messages is empty"),
        ({"messages": [*turns("a"), {"role": "narrator", "content": "b"}]}, "conversation", {}, "the role 'narrator'"),
        (
            {"prompt": "Hi", "chosen": [{"role": "assistant", "tool_calls": [CALL]}], "rejected": "b"},
            "preference",
            {},
            "tool calls need",
        ),
    ],
)
def test_a_row_that_teaches_nothing_says_why(tiny_tokenizer, row, row_format, settings, reason):
    (found,) = encode(tiny_tokenizer, [row], row_format, max_length=64, **settings)
    assert isinstance(found, str) and reason in found


def test_one_bad_row_does_not_take_others_with_it(tiny_tokenizer):
    good, bad = {"messages": turns("a", "b")}, {"messages": turns("a\ud800", "b")}
    results = encode(tiny_tokenizer, [good, bad, good, {"text": "x\ud800"}, {"text": "x"}])
    assert [isinstance(result, Example) for result in results] == [True, False, True, False, True]


FIELDS = """text messages conversations prompt question instruction input output answer final chosen rejected history
system tools thinking role from content value type tool_calls function name arguments reasoning_content"""
NAMES = st.sampled_from(FIELDS.split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["user", "assistant", "function_call", "text", "\ud800", "[[", "{}", '["a", null]', ATTACK]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": VALUES}),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("row_format", ROW_FORMATS)
@settings(deadline=None, max_examples=150)
@given(st.dictionaries(NAMES, st.one_of(VALUES, TURNS), max_size=6))
def test_no_row_stops_a_run(tiny_tokenizer, row_format, row):
    (result,) = encode(tiny_tokenizer, [row], row_format, apply_thinking_template=True)
    assert isinstance(result, (Example, str))
