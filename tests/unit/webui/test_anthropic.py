"""`/v1/messages` of the Anthropic API, through Anthropic's own client."""

import asyncio

import anthropic
import pytest


HELLO = [{"role": "user", "content": "Where does Ada live?"}]
ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}, "sign": {"enum": ["+", "-"]}},
        "required": ["a", "sign"],
    },
}


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server, api_key="none", max_retries=0)


def ask(client, **given):
    return client.messages.create(**{"model": "doge", "messages": HELLO, "max_tokens": 12, **given})


def test_answer_is_the_engines(client, engine):
    answer = ask(client)
    assert [block.text for block in answer.content] == ["".join(engine.chat(HELLO, max_new_tokens=12))]
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert answer.usage.output_tokens == 12
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == len(engine.render(HELLO))
    assert answer._request_id.startswith("req_")


def test_stream_helper_gives_the_same_message(client, engine):
    with client.messages.stream(model="doge", messages=HELLO, max_tokens=12) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "".join(engine.chat(HELLO, max_new_tokens=12)) == message.content[0].text
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 12


def test_events_come_in_the_order_of_the_api(client):
    kinds = [event.type for event in ask(client, stream=True)]
    pieces = [kind for place, kind in enumerate(kinds) if kind != kinds[place - 1]]
    assert pieces == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"),
    ]


def test_async_client_streams(server, engine):
    async def read():
        client = anthropic.AsyncAnthropic(base_url=server, api_key="none", max_retries=0)
        async with client, client.messages.stream(model="doge", messages=HELLO, max_tokens=4) as stream:
            return "".join([piece async for piece in stream.text_stream])

    assert asyncio.run(read()) == "".join(engine.chat(HELLO, max_new_tokens=4))


def test_system_and_blocks_are_one_conversation(client, engine):
    blocks = [{"type": "text", "text": "Where does "}, {"type": "text", "text": "Ada live?"}]
    answer = ask(
        client, system=[{"type": "text", "text": "Be brief."}], messages=[{"role": "user", "content": blocks}]
    )
    told = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert answer.content[0].text == "".join(engine.chat(told, max_new_tokens=12))


def test_last_message_of_the_assistant_is_continued(client, engine):
    messages = [*HELLO, {"role": "assistant", "content": "Ada lives"}]
    answer = ask(client, messages=messages)
    ids = engine.render(messages, continue_final_message=True)
    assert answer.content[0].text == engine.generate(ids, max_new_tokens=12)


def test_stop_sequence_is_named(client, engine):
    text = "".join(engine.chat(HELLO, max_new_tokens=12))
    answer = ask(client, stop_sequences=["none of this", text[3:6]])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", text[3:6])
    assert answer.content[0].text == text[: text.index(text[3:6])]
    with client.messages.stream(
        model="doge", messages=HELLO, max_tokens=12, stop_sequences=["none of this", text[3:6]]
    ) as stream:
        assert stream.get_final_message().stop_sequence == text[3:6]


def test_model_that_must_call_a_tool_calls_it(client):
    given = {"tools": [ADD], "tool_choice": {"type": "tool", "name": "add"}, "max_tokens": 100}
    answer = ask(client, **given)
    (call,) = answer.content
    assert (call.type, call.name, answer.stop_reason) == ("tool_use", "add", "tool_use")
    assert call.input["sign"] in "+-"
    with client.messages.stream(model="doge", messages=HELLO, **given) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].input == call.input
    assert streamed.stop_reason == "tool_use"


def test_any_tool_and_the_way_back(client, engine):
    answer = ask(client, tools=[ADD], tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_tokens=100)
    (call,) = answer.content
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "7"}]}
    messages = [
        *HELLO,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    told = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": call.input}}]},
        {"role": "tool", "content": "7"},
        {"role": "user", "content": "So?"},
    ]
    assert client.messages.count_tokens(model="doge", messages=messages).input_tokens == len(engine.render(told))
    assert ask(client, messages=messages, tools=[ADD], tool_choice={"type": "auto"}).content


def test_tools_that_may_not_be_called_are_not_shown(client, engine):
    count = client.messages.count_tokens(model="doge", messages=HELLO, tools=[ADD], tool_choice={"type": "none"})
    assert count.input_tokens == len(engine.render(HELLO))
    assert client.messages.count_tokens(model="doge", messages=HELLO, tools=[ADD]).input_tokens > count.input_tokens


def test_answer_follows_a_schema(client):
    form = {"type": "json_schema", "schema": {"enum": ["red", "blue"]}}
    assert ask(client, output_config={"format": form}).content[0].text in ('"red"', '"blue"')


def test_models_are_listed(client):
    assert "doge" in [model.id for model in client.models.list()]
    assert client.models.retrieve("doge").display_name == "doge"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "dogge"}, "did you mean 'doge'"),
        ({"model": ""}, "model: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"extra_body": {"max_tokens": "many"}}, "max_tokens: "),
        ({"extra_body": {"max_tokens": 10**6}}, "--max-output-tokens"),
        ({"extra_body": {"temperature": -1}}, "temperature"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            r"content\[0\] has type 'image'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            "no tool_use block",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": 1}]}]}, "needs an id, a name"),
        ({"system": [{"type": "image"}]}, "has type 'image'"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "does not bring along"),
        ({"tools": [{"name": "add"}]}, "input_schema"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "ad"}}, "did you mean 'add'"),
        ({"tools": [ADD], "tool_choice": {"type": ["auto"]}}, "tool_choice"),
        ({"output_config": {"format": {"type": "xml"}}}, "json_schema"),
        ({"extra_body": {"mcp_servers": [{}]}}, "mcp_servers is not supported"),
    ],
)
def test_what_cannot_be_done_is_said(client, given, said):
    with pytest.raises(anthropic.APIStatusError, match=said) as caught:
        ask(client, **given)
    body = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == ("not_found_error" if caught.value.status_code == 404 else "invalid_request_error")
    assert body["request_id"] == caught.value.response.headers["request-id"]


def test_unknown_fields_are_named_in_a_header(client):
    response = client.messages.with_raw_response.create(
        model="doge", messages=HELLO, max_tokens=1, metadata={"user_id": "a"}, extra_body={"colour": "red"}
    )
    assert response.headers["X-Small-Doge-Ignored"] == "colour"
