"""Tools and JSON in the chat completions of the OpenAI API, through OpenAI's own client."""

import json

import httpx
import openai
import pytest


HELLO = [{"role": "user", "content": "What is 3 plus 4?"}]
COLOUR = {"type": "string", "enum": ["red", "blue"]}
PARAMETERS = {"type": "object", "properties": {"colour": COLOUR}, "required": ["colour"]}
PAINT = {"type": "function", "function": {"name": "paint", "description": "Paints.", "parameters": PARAMETERS}}
WASH = {"type": "function", "function": {"name": "wash", "parameters": PARAMETERS}}
NAMED = {"type": "function", "function": {"name": "paint"}}
SCHEMA = {"type": "object", "properties": {"colour": COLOUR}, "required": ["colour"], "additionalProperties": False}
FORM = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def ask(client, **given):
    return client.chat.completions.create(**{"model": "doge", "messages": HELLO, "max_tokens": 60, **given})


def collect_calls(chunks):
    """Put the calls of a stream together, as clients do; check that each begins with its id and name."""
    calls, reason = {}, None
    for chunk in chunks:
        choice = chunk.choices[0]
        for delta in choice.delta.tool_calls or []:
            if delta.index not in calls:
                assert delta.id and delta.type == "function"
                calls[delta.index] = [delta.function.name, ""]
            calls[delta.index][1] += delta.function.arguments
        reason = choice.finish_reason or reason
    return [(name, json.loads(arguments)) for name, arguments in calls.values()], reason


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_required_call_is_made(client, choice):
    given = {"tools": [PAINT, WASH], "tool_choice": choice, "parallel_tool_calls": False}
    answer = ask(client, **given).choices[0]
    (call,) = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    assert call.function.name in (["paint"] if choice is NAMED else ["paint", "wash"])
    assert json.loads(call.function.arguments)["colour"] in COLOUR["enum"]
    calls, reason = collect_calls(ask(client, stream=True, **given))
    assert calls == [(call.function.name, json.loads(call.function.arguments))]
    assert reason == "tool_calls"


def test_several_calls_have_ids_of_their_own(client, engine):
    bias = {str(token): -1000 for token in engine.end_ids}
    answer = ask(client, tools=[PAINT], tool_choice="required", max_tokens=900, logit_bias=bias).choices[0]
    calls = answer.message.tool_calls
    assert len({call.id for call in calls}) == len(calls) > 1


def test_allowed_tools_alone_are_called(client):
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WASH]}}
    answer = ask(client, tools=[PAINT, WASH], tool_choice=allowed, parallel_tool_calls=False)
    assert answer.choices[0].message.tool_calls[0].function.name == "wash"


def test_call_that_is_cut_off_is_text(client):
    given = {"tools": [PAINT], "tool_choice": "required", "max_tokens": 8}
    answer = ask(client, **given).choices[0]
    assert (answer.finish_reason, answer.message.tool_calls) == ("length", None)
    assert answer.message.content.startswith('{"name":')
    calls, reason = collect_calls(ask(client, stream=True, **given))
    assert (calls, reason) == ([], "length")


def test_free_choice_may_be_text(client, engine):
    answer = ask(client, tools=[PAINT], max_tokens=8).choices[0]
    assert answer.message.content
    assert ask(client, tools=[PAINT], max_tokens=8).usage.prompt_tokens == len(engine.render(HELLO, tools=[PAINT]))
    assert ask(client, tools=[PAINT], tool_choice="none").usage.prompt_tokens == len(engine.render(HELLO))


def test_call_and_result_are_rendered(client, engine):
    call = {"id": "call_1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    rendered = engine.render([*HELLO, {**messages[1], "content": ""}, messages[2]], tools=[PAINT])
    assert ask(client, messages=messages, tools=[PAINT], max_tokens=1).usage.prompt_tokens == len(rendered)


def test_choices_call_on_their_own(client):
    given = {"tools": [PAINT, WASH], "tool_choice": "required", "parallel_tool_calls": False, "n": 3, "temperature": 2}
    for choice in ask(client, seed=5, **given).choices:
        assert json.loads(choice.message.tool_calls[0].function.arguments)["colour"] in COLOUR["enum"]


@pytest.mark.parametrize("stream", [False, True])
def test_answer_follows_the_schema(client, stream):
    answer = ask(client, response_format=FORM, stream=stream)
    text = (
        "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        if stream
        else answer.choices[0].message.content
    )
    assert json.loads(text)["colour"] in COLOUR["enum"]


def test_answer_is_an_object(client):
    ask(client, response_format={"type": "text"}, max_tokens=1)
    text = ask(client, response_format={"type": "json_object"}, max_tokens=20).choices[0].message.content
    assert text.startswith("{")


def test_form_has_no_effect_on_a_required_call(client):
    answer = ask(client, tools=[PAINT], tool_choice=NAMED, response_format=FORM)
    assert answer.choices[0].message.tool_calls
    answer = ask(client, tools=[PAINT], tool_choice="none", response_format=FORM)
    assert json.loads(answer.choices[0].message.content)["colour"] in COLOUR["enum"]


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ({"tools": [PAINT], "response_format": FORM}, "tool_choice", "response_format"),
        ({"response_format": {"type": "xml"}}, "json_object", "response_format"),
        ({"response_format": {"type": "json_schema"}}, "no schema", "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}},
            "not a usable JSON schema",
            "response_format",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "custom", "tools"),
        ({"tools": [{"type": "function", "function": 3}]}, "definition", "tools"),
        ({"tools": [{"type": "function"}]}, "name", "tools"),
        ({"tools": [PAINT, PAINT]}, "two definitions", "tools"),
        (
            {"tools": [PAINT], "tool_choice": {"type": "function", "function": {"name": "paimt"}}},
            "paint",
            "tool_choice",
        ),
        ({"tools": [PAINT], "tool_choice": "any"}, "auto, none, required", "tool_choice"),
        ({"tool_choice": "required"}, "needs tools", "tool_choice"),
        ({"extra_body": {"tools": 3}}, "tools", "tools"),
        ({"extra_body": {"parallel_tool_calls": "yes"}}, "parallel_tool_calls", "parallel_tool_calls"),
        ({"extra_body": {"functions": [{}]}}, "functions is not supported", "functions"),
    ],
)
def test_what_cannot_be_done_is_said(client, given, said, param):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(client, **given)
    assert caught.value.param == param


def test_model_whose_template_knows_no_tools_is_told_of_them(tiny_tokenizer):
    import copy
    from types import SimpleNamespace

    from small_doge.webui.tool_prompts import fit_template

    call = {"function": {"name": "paint", "arguments": {"colour": "red"}}}
    messages = [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert fit_template(SimpleNamespace(tokenizer=tiny_tokenizer), messages, [PAINT]) == (messages, [PAINT])
    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    told, tools = fit_template(SimpleNamespace(tokenizer=plain), messages, [PAINT])
    assert tools is None
    assert told[0]["content"].startswith("Be kind.\n\nYou can call these functions")
    assert json.loads(told[0]["content"].splitlines()[-1]) == PAINT
    assert json.loads(told[1]["content"]) == {"name": "paint", "arguments": {"colour": "red"}}
    assert fit_template(SimpleNamespace(tokenizer=plain), HELLO, [PAINT])[0][1:] == HELLO


def test_template_is_applied_with_tools(server):
    prompt = httpx.post(f"{server}/apply-template", json={"messages": HELLO, "tools": [PAINT]}).json()["prompt"]
    assert '"name": "paint"' in prompt
