"""`/v1/responses`, through OpenAI's own client."""

import json

import httpx
import openai
import pytest
from tests.webui import run_app


HELLO = [{"role": "user", "content": "What is 3 plus 4?"}]
COLOUR = {"type": "string", "enum": ["red", "blue"]}
PARAMETERS = {"type": "object", "properties": {"colour": COLOUR}, "required": ["colour"]}
PAINT = {"type": "function", "name": "paint", "parameters": {**PARAMETERS, "additionalProperties": False}}
TEMPLATE_TOOL = {"type": "function", "function": {"name": "paint", "parameters": PAINT["parameters"]}}


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def ask(client, **given):
    return client.responses.create(**{"model": "doge", "input": HELLO[0]["content"], "max_output_tokens": 60, **given})


def test_response_is_the_engines(client, engine):
    response = ask(client, max_output_tokens=12)
    assert response.output_text == "".join(engine.chat(HELLO, max_new_tokens=12))
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.input_tokens == len(engine.render(HELLO))
    assert response.usage.output_tokens == 12


def test_items_and_instructions_are_rendered(client, engine):
    call = {"type": "function_call", "call_id": "c", "name": "paint", "arguments": '{"colour": "red"}'}
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "Paint!"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
        call,
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
    ]
    told = [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Paint!"},
        {"role": "assistant", "content": "Well.", "tool_calls": [{"function": call}]},
        {"role": "tool", "content": "done"},
    ]
    given = {"input": items, "instructions": "Be brief.", "tools": [PAINT], "model": "doge"}
    expected = len(engine.render(told, tools=[TEMPLATE_TOOL]))
    assert client.responses.create(**given, max_output_tokens=1).usage.input_tokens == expected
    assert client.responses.input_tokens.count(**given).input_tokens == expected


def test_events_of_a_text_come_in_order(client):
    text = ask(client, max_output_tokens=12).output_text
    events = list(ask(client, max_output_tokens=12, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == text
    assert events[-1].response.output_text == text
    assert events[-1].response.usage.output_tokens == 12


def test_clients_own_stream_reads_the_events(client):
    with client.responses.stream(model="doge", input="Hello", max_output_tokens=8) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == ask(client, input="Hello", max_output_tokens=8).output_text


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "paint"}])
def test_tool_is_called(client, choice):
    given = {"tools": [PAINT], "tool_choice": choice, "parallel_tool_calls": False}
    response = ask(client, **given)
    (call,) = response.output
    assert (call.type, call.name, call.status, response.status) == ("function_call", "paint", "completed", "completed")
    assert json.loads(call.arguments)["colour"] in COLOUR["enum"]
    events = list(ask(client, stream=True, **given))
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert events[-1].response.output[0].arguments == call.arguments


def test_text_follows_a_schema(client):
    schema = {**PARAMETERS, "additionalProperties": False}
    response = ask(client, text={"format": {"type": "json_schema", "name": "colour", "schema": schema}})
    assert json.loads(response.output_text)["colour"] in COLOUR["enum"]
    assert response.status == "completed"


def test_log_probabilities_are_included(client, engine):
    response = ask(client, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=3)
    found = response.output[0].content[0].logprobs
    expected = list(engine.stream_tokens(engine.render(HELLO), logprobs=2, max_new_tokens=3))
    assert [entry.logprob for entry in found] == pytest.approx([token.logprob for token in expected], abs=1e-4)
    assert all(len(entry.top_logprobs) == 2 for entry in found)


@pytest.mark.parametrize("num_tokens", [1, 8])
def test_log_probabilities_of_tokens_that_complete_no_text_are_streamed(client, engine, num_tokens):
    half = engine.encode("é", add_special_tokens=False)[0]  # of two bytes
    given = {
        "include": ["message.output_text.logprobs"],
        "max_output_tokens": num_tokens,
        "extra_body": {"logit_bias": {str(half): 100}},
    }
    events = list(ask(client, stream=True, **given))
    assert_logprobs_are_told(events, num_tokens)


def test_log_probabilities_of_an_answer_without_text_are_streamed(client, engine):
    end = engine.tokenizer.eos_token_id
    given = {"include": ["message.output_text.logprobs"], "extra_body": {"logit_bias": {str(end): 100}}}
    events = list(ask(client, stream=True, **given))
    assert_logprobs_are_told(events, 1)
    assert [event.type for event in events].count("response.content_part.added") == 1


def assert_logprobs_are_told(events, num_tokens):
    """Check that the pieces of a text have the log-probabilities of the whole, each once."""
    told = [entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert [entry.logprob for entry in told] == [entry.logprob for entry in done.logprobs]
    assert len(told) == num_tokens


def test_failure_within_a_stream_is_an_event(models_dir):
    with run_app(models=(str(models_dir / "doge"),), threads=1, request_timeout=0.001) as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        events = list(ask(client, stream=True, max_output_tokens=200))
    assert events[-1].type == "response.failed"
    assert "took longer" in events[-1].response.error.message


def test_what_changes_nothing_is_named(client):
    response = client.responses.with_raw_response.create(
        model="doge",
        input="Hello",
        max_output_tokens=16,
        store=True,
        metadata={"a": "b"},
        extra_body={"colour": "red"},
    )
    assert response.headers["X-Small-Doge-Ignored"] == "colour, store"
    assert response.parse().metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id is not supported", "previous_response_id"),
        ({"background": True}, "background", "background"),
        ({"conversation": "conv_1"}, "conversation", "conversation"),
        ({"truncation": "auto"}, "truncation", "truncation"),
        ({"input": []}, "empty", "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\].role", "input"),
        ({"input": [{"type": ["message"]}]}, "has type", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference", "input"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "call_id", "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input_image", None),
        ({"tools": [{"type": "web_search"}]}, "web_search", "tools"),
        ({"text": {"format": {"type": "xml"}}}, "json_object", "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "usable JSON schema", "text.format"),
        ({"max_output_tokens": 10**6}, "--max-output-tokens", None),
        ({"extra_body": {"temperature": "hot"}}, "temperature", "temperature"),
    ],
)
def test_what_cannot_be_done_is_said(client, given, said, param):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(client, **given)
    assert param is None or caught.value.param == param


def test_responses_are_not_kept(server):
    response = httpx.get(f"{server}/v1/responses/resp_1")
    assert response.status_code == 404
    assert "keeps none" in response.json()["error"]["message"]
