"""Calls of tools: an answer under the grammar calls tools as they are defined, and what was written is read back."""

import json

import pytest

from small_doge.inference.tool_calls import ToolCall, ToolCallReader, build_tool_grammar, parse_tool_calls
from small_doge.utils.errors import UserError


pytest.importorskip("llguidance")
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99, "minimum": 0}}, "required": ["a"]}
ADD = {"type": "function", "function": {"name": "add", "parameters": NUMBERS}}
NOW = {"type": "function", "function": {"name": "get-time", "description": "tells the time"}}
NODE = {
    "type": "function",
    "function": {
        "name": "tree",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/leaf"}},
            "required": ["next"],
            "$defs": {"leaf": {"enum": ["é", 'a "b"']}},
        },
    },
}
TOOLS = [ADD, NOW, NODE]


@pytest.fixture
def model(make_engine, tiny_tokenizer):
    return make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer))


@pytest.fixture
def accepts(model, tiny_tokenizer):
    """Whether a grammar accepts the whole of a text, and as an end."""

    def check(grammar, text):
        request = model.submit(model.encode("x"), grammar=grammar)
        matcher, ids = request.sampler.matcher, tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    return check


ADD_CALL, NOW_CALL = '{"name": "add", "arguments": {"a": 2}}', '{"name": "get-time", "arguments": {}}'
TREE_CALL = '{"name": "tree", "arguments": {"next": "a \\"b\\""}}'


def test_which_answers_a_choice_allows(accepts):
    text, brace = "Let me see.\n", 'In JSON: {"a": 1}, {"names": 2}. '
    answers = {
        "": ["auto"],
        text: ["auto"],
        brace: ["auto"],
        ADD_CALL: ["auto", "required", "add"],
        NOW_CALL: ["auto", "required"],
        TREE_CALL: ["auto", "required"],
        ADD_CALL + TREE_CALL + NOW_CALL: ["auto", "required"],
        brace + ADD_CALL: ["auto"],
        ADD_CALL + text: [],
        '{"name": "sub", "arguments": {"a": 2}}': [],
        '{"name": "add", "arguments": {"a": "2"}}': [],
        '{"name": "add", "arguments": {"a": 2, "b": 3}}': [],
        '{"name": "add", "arguments": {"a":  2}}': [],
        '{"name": "add", "arguments": {"a": 2}': [],
    }
    for answer, expected in answers.items():
        for choice in ("auto", "required", "add"):
            allowed = accepts(build_tool_grammar(TOOLS, choice), answer)
            assert allowed == (choice in expected), (answer, choice)
    assert accepts(build_tool_grammar(TOOLS, parallel_tool_calls=False), ADD_CALL)
    assert not accepts(build_tool_grammar(TOOLS, parallel_tool_calls=False), ADD_CALL + ADD_CALL)
    assert accepts(build_tool_grammar(TOOLS, "required"), NOW_CALL * 16)
    assert not accepts(build_tool_grammar(TOOLS, "required"), NOW_CALL * 17)


def test_the_chat_template_writes_calls_in_the_form_of_the_grammar(model, accepts):
    calls = [ToolCall("add", '{"a": 2}'), ToolCall("tree", '{"next": "é"}')]
    messages = [
        {
            "role": "assistant",
            "content": "Well:",
            "tool_calls": [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls],
        }
    ]
    text = model.render_text(messages, tools=TOOLS, add_generation_prompt=False)
    answer = text.split("<|end_header_id|>\n\n")[-1].removesuffix("<|eot_id|>")
    assert accepts(build_tool_grammar(TOOLS), answer)
    assert parse_tool_calls(answer) == ("Well:", calls)


@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_model_that_knows_nothing_calls_a_tool_rightly(model, choice):
    grammar = build_tool_grammar(TOOLS, choice, parallel_tool_calls=False)
    for seed in range(4):
        text = model.generate("Hi", max_new_tokens=200, temperature=1.0, seed=seed, grammar=grammar)
        content, [call] = parse_tool_calls(text)
        assert content == "" and call.name in ("add", "get-time", "tree")
        assert choice == "required" or (call.name == "add" and 0 <= json.loads(call.arguments)["a"] < 100)


def test_no_grammar_is_needed_where_nothing_can_be_called():
    assert build_tool_grammar([]) is None and build_tool_grammar(TOOLS, "none") is None


def test_definitions_that_are_none_are_refused(model):
    def tool(**function):
        return {"type": "function", "function": function}

    for tools, choice, problem in (
        ([{"type": "function"}], "auto", r"tools\[0\] must be"),
        (["add"], "auto", r"tools\[0\] must be"),
        ([tool(name="a b")], "auto", "letters, digits"),
        ([ADD, ADD], "auto", "two definitions"),
        ([tool(name="a", parameters={"type": "string"})], "auto", "of type object"),
        ([tool(name="a", parameters=[])], "auto", "of type object"),
        ([tool(name="a", parameters={"x": object()})], "auto", "written as JSON"),
        ([tool(name="a", parameters={"description": "x" * 70000})], "auto", "the limit is 65536"),
        ([tool(name="a", parameters={"properties": {"n": {"multipleOf": 99991}}})], "auto", "multipleOf"),
        (TOOLS, "ad", "did you mean 'add'"),
        ([], "required", "needs tools"),
    ):
        with pytest.raises(UserError, match=problem):
            build_tool_grammar(tools, choice)
    nonsense = build_tool_grammar([tool(name="a", parameters={"properties": {"n": {"type": "nonsense"}}})])
    with pytest.raises(UserError, match="grammar is not a usable grammar"):
        model.submit([1], grammar=nonsense)


@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        ("No call.", "No call.", []),
        ("", "", []),
        (f"Well: {ADD_CALL}{NOW_CALL}", "Well: ", ["add", "get-time"]),
        (f"{ADD_CALL}\n{NOW_CALL}\n", "", ["add", "get-time"]),
        (f"{ADD_CALL} done", "done", ["add"]),
        (ADD_CALL[:-3], ADD_CALL[:-3], []),
        (f"{ADD_CALL}{NOW_CALL[:-3]}", NOW_CALL[:-3], ["add"]),
        ('{"name": "add"}', '{"name": "add"}', []),
        ('{"name": "add", "arguments": [1]}', '{"name": "add", "arguments": [1]}', []),
        ('{"name": 3, "arguments": {}}', '{"name": 3, "arguments": {}}', []),
        ('{"name":' * 5000, '{"name":' * 5000, []),
        ('"name": {"nam', '"name": {"nam', []),
    ],
)
def test_calls_are_told_from_text_whole_and_letter_by_letter(text, content, names):
    found, calls = parse_tool_calls(text)
    assert (found, [call.name for call in calls]) == (content, names)
    reader = ToolCallReader()
    pieces = [reader.push(letter) for letter in text]
    rest, streamed = reader.finish()
    assert ("".join(pieces) + rest, streamed) == (content, calls)
    assert not any("{" in piece for piece in pieces[:-9]) or not names


def test_arguments_with_half_a_character_can_still_be_sent():
    _, [call] = parse_tool_calls('{"name": "add", "arguments": {"a": "\\ud800"}}')
    assert call.arguments.encode() == b'{"a": "\\ud800"}'
