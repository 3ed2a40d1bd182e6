"""Texts and conversations of an engine: control tokens are the template's alone, and tokens are shown as what they are."""

import pytest
from tests.chats import ATTACK, count_special, turns

from small_doge.utils.errors import UserError

from .conftest import distinct_tokens


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture
def texts(make_engine, tiny_tokenizer):
    return make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer) + 3)


def test_a_continued_message_is_left_open(texts, tiny_tokenizer):
    closed = texts.render(turns("Hi", "Hello there"))
    open_end = texts.render(turns("Hi", "Hello there"), continue_final_message=True)
    end_of_turn = tiny_tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert closed[: len(open_end)] == open_end and closed[len(open_end)] == end_of_turn
    assert texts.decode(open_end).endswith("<|end_header_id|>\n\nHello there")
    assert texts.render_text(turns("Hi", "Hello there"), continue_final_message=True) == texts.decode(open_end)


@pytest.mark.parametrize("content", ["", "  \n", None])
def test_continuing_an_empty_message_begins_it(texts, content):
    messages = [*turns("Hi"), {"role": "assistant", "content": content}]
    assert texts.render(messages, continue_final_message=True) == texts.render(turns("Hi"))


def test_what_a_continued_message_spells_out_is_text(texts, tiny_tokenizer):
    ids = texts.render(turns("Hi", ATTACK + " and <|eot_id|>"), continue_final_message=True)
    assert count_special(tiny_tokenizer, ids) == count_special(tiny_tokenizer, texts.render(turns("Hi")))
    assert texts.decode(ids).endswith("and <|eot_id|>") and not count_special(tiny_tokenizer, ids[-4:])


def test_only_a_text_of_the_assistant_can_be_continued(texts):
    calls = [{"function": {"name": "add", "arguments": {}}}]
    for messages, problem in (
        (turns("Hi"), "a last message of the assistant"),
        ([], "a last message of the assistant"),
        ([*turns("Hi"), {"role": "assistant", "content": "x", "tool_calls": calls}], "calls tools"),
        ([*turns("Hi"), {"role": "assistant", "content": ["x"]}], "content is text"),
    ):
        with pytest.raises(UserError, match=problem):
            texts.render(messages, continue_final_message=True)


def test_a_template_that_changes_what_is_said_can_not_continue_it(texts, monkeypatch):
    monkeypatch.setattr(
        texts.tokenizer, "chat_template", "{% for message in messages %}{{ message.content | upper }}{% endfor %}"
    )
    with pytest.raises(UserError, match="can't be continued"):
        texts.render(turns("Hi", "Hello"), continue_final_message=True)


def test_tools_and_their_calls_are_rendered_alike_from_json_text_and_from_mappings(texts):
    def chat(arguments):
        call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": arguments}}
        return [*turns("2 + 3?"), {"role": "assistant", "content": None, "tool_calls": [call]}]

    text = texts.render_text(chat('{"a": 2, "b": 3}'), tools=[TOOL])
    assert '{"name": "add", "arguments": {"a": 2, "b": 3}}<|eot_id|>' in text and '"parameters"' in text
    assert texts.render(chat('{"a": 2, "b": 3}'), tools=[TOOL]) == texts.render(chat({"a": 2, "b": 3}), tools=[TOOL])
    assert texts.decode(texts.render(chat({"a": 2}), tools=[TOOL])) == texts.render_text(chat({"a": 2}), tools=[TOOL])
    for arguments in ("{", "[1]"):
        with pytest.raises(UserError, match=r"messages\[1\].tool_calls holds arguments"):
            texts.render(chat(arguments))


def test_conversations_that_are_none_are_refused(texts, monkeypatch):
    for messages, options, problem in (
        (["Hi"], {}, r"messages\[0\] must be"),
        ([{"role": "user", "content": "\ud800"}], {}, "not valid Unicode"),
        ([{"content": "Hi"}], {}, "the chat template refuses"),
        ([{"role": "assistant", "tool_calls": "add"}], {}, "must be a list of calls"),
        (turns("Hi"), {"tools": ["add"]}, "tools must be a list"),
        (turns("Hi"), {"template": "{{ bos_token }}"}, "template can't be a variable"),
        (turns("Hi"), {"documents": 3}, "refuses the conversation"),
    ):
        with pytest.raises(UserError, match=problem):
            texts.render(messages, **options)
    monkeypatch.setattr(texts.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="has no chat template"):
        texts.render(turns("Hi"))


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "conversations", "conversation", "template", "chat_template", "with_answers", "tokenize"),
        "return_assistant_tokens_mask",
    ],
)
def test_a_variable_of_the_template_with_the_name_of_an_argument_is_refused(texts, name):
    for render in (texts.render, texts.render_text):
        with pytest.raises(UserError, match=f"^{name} can't be a variable of the chat template"):
            render(turns("Hi"), **{name: True})


def test_other_variables_reach_the_template(texts, monkeypatch):
    monkeypatch.setattr(texts.tokenizer, "chat_template", "{{ mood }} {{ documents[0].title }}")
    assert texts.render_text(turns("Hi"), mood="glad", documents=[{"title": "Ada"}]) == "glad Ada"


@pytest.mark.parametrize("text", ["Ada lives in", "é🙂 中\n\n\ttab", "<|eot_id|> typed", ""])
def test_decoding_gives_the_text_and_pieces_are_its_parts(texts, text):
    ids = texts.encode(text, add_special_tokens=False)
    assert texts.encode(text)[1:] == ids and texts.decode(ids) == text
    assert b"".join(map(texts.token_bytes, ids)).decode() == text
    assert texts.decode(texts.encode(text)) == "<|begin_of_text|>" + text
    assert texts.decode(texts.encode(text), skip_special_tokens=True) == text


def test_every_token_has_a_piece(texts, tiny_tokenizer):
    pieces = [texts.piece(id) for id in range(texts.vocab_size)]
    assert all(pieces) and "\ufffd" not in "".join(pieces)
    assert pieces[tiny_tokenizer.eos_token_id] == "<|end_of_text|>"
    assert pieces[-1] == f"[{texts.vocab_size - 1}]"
    first, second = tiny_tokenizer("é", add_special_tokens=False)["input_ids"]
    assert [texts.piece(first), texts.piece(second)] == ["\\xc3", "\\xa9"]


def test_tokens_that_the_model_does_not_have_are_refused(make_engine, texts):
    for call in (texts.piece, texts.token_bytes, lambda id: texts.decode([id])):
        for id in (-1, texts.vocab_size, 1.5):
            with pytest.raises(UserError, match="must be a whole number"):
                call(id)
    with pytest.raises(UserError, match="has no tokenizer"):
        make_engine().decode(distinct_tokens(3, 97))
