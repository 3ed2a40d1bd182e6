"""The chat completions of the OpenAI API, through OpenAI's own client."""

import httpx
import openai
import pytest


HELLO = [{"role": "user", "content": "Where does Ada live?"}]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def test_answer_is_the_engines(client, engine):
    answer = client.chat.completions.create(model="doge", messages=HELLO, max_tokens=12)
    assert answer.choices[0].message.content == "".join(engine.chat(HELLO, max_new_tokens=12))
    assert answer.usage.prompt_tokens == len(engine.render(HELLO))
    assert answer.usage.completion_tokens == 12
    assert answer.choices[0].finish_reason == "length"


def test_stream_gives_the_same_text_and_usage(client, engine):
    chunks = list(
        client.chat.completions.create(
            model="doge", messages=HELLO, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(engine.chat(HELLO, max_new_tokens=12))
    assert chunks[-1].usage.completion_tokens == 12


def test_seeded_choices_differ_and_come_again(client):
    def ask(seed):
        given = {"model": "doge", "messages": HELLO, "max_tokens": 8, "temperature": 1.5, "seed": seed, "n": 3}
        return [choice.message.content for choice in client.chat.completions.create(**given).choices]

    assert ask(3) == ask(3)
    assert len(set(ask(3))) > 1


def test_openai_prefix_of_the_guides_serves_the_same(server):
    client = openai.OpenAI(base_url=f"{server}/openai", api_key="none", max_retries=0)
    assert "doge" in [model.id for model in client.models.list()]
    assert client.chat.completions.create(model="doge", messages=HELLO, max_tokens=2).choices


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model", "dogge", "did you mean 'doge'"),
        ("temperature", -1, "temperature"),
        ("messages", [], "at least one message"),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "image_url"),
        ("top_logprobs", 3, "logprobs"),
        ("max_tokens", 10**6, "--max-output-tokens"),
        ("logit_bias", {"100000": 1}, "token 100000"),
        ("stop", "", "stop"),
        ("n", 1000, "n"),
        ("n", 17, "n=17"),
        ("messages", [{"role": "assistant", "content": "", "function_call": {"name": "x"}}], "function_call"),
        ("messages", [{"content": "x"}], "role"),
    ],
)
def test_what_cannot_be_done_is_said(client, field, value, said):
    given = {"model": "doge", "messages": HELLO, "max_tokens": 2, field: value}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=said):
        client.chat.completions.create(**given)


@pytest.mark.parametrize(
    "name",
    [
        *("self", "tokenizer", "conversations", "conversation", "messages", "tools", "template", "chat_template"),
        *("with_answers", "max_tokens", "tokenize", "return_assistant_tokens_mask", "continue_final_message"),
        "add_generation_prompt",
    ],
)
def test_a_variable_of_the_template_that_is_an_argument_of_the_server_is_refused(client, name):
    given = {"model": "doge", "messages": HELLO, "extra_body": {"chat_template_kwargs": {name: False}}}
    with pytest.raises(openai.BadRequestError, match=f"{name} can't be a variable of the chat template") as caught:
        client.chat.completions.create(**given, max_tokens=1)
    assert (caught.value.param, caught.value.code) == ("chat_template_kwargs", "invalid_request")


def test_variables_of_the_template_reach_it(client, engine):
    given = {"model": "doge", "messages": HELLO, "max_tokens": 1}
    answer = client.chat.completions.create(**given, extra_body={"chat_template_kwargs": {"bos_token": "Ada Ada"}})
    assert answer.usage.prompt_tokens == len(engine.render(HELLO, bos_token="Ada Ada")) != len(engine.render(HELLO))


def test_unknown_fields_are_named_in_a_header(client):
    response = client.chat.completions.with_raw_response.create(
        model="doge",
        messages=[{**HELLO[0], "mood": "glad"}],
        max_tokens=1,
        user="ada",
        metadata={"a": "b"},
        extra_body={"colour": "red", "top_k": None, "return_token_ids": None},
    )
    assert response.headers["X-Small-Doge-Ignored"] == "colour, messages.mood"


def test_log_probabilities_have_the_clients_form(client, engine):
    given = {"model": "doge", "messages": HELLO, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    found = client.chat.completions.create(**given).choices[0].logprobs.content
    expected = list(engine.stream_tokens(engine.render(HELLO), logprobs=2, max_new_tokens=6))
    streamed = [
        entry
        for chunk in client.chat.completions.create(**given, stream=True)
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    for entries in (found, streamed):
        for entry, token in zip(entries, expected, strict=True):
            assert entry.token == engine.piece(token.id)
            assert bytes(entry.bytes) == engine.token_bytes(token.id)
            assert entry.logprob == pytest.approx(token.logprob, abs=1e-4)
            assert [top.token for top in entry.top_logprobs] == [engine.piece(i) for i in token.top_logprobs]
    without = client.chat.completions.create(**{**given, "top_logprobs": None}).choices[0].logprobs.content
    assert all(entry.top_logprobs == [] for entry in without)


def test_stop_texts_end_an_answer(client, engine):
    text = "".join(engine.chat(HELLO, max_new_tokens=12))
    for stop in (text[1:3], ["none of this", text[1:3]]):
        choice = client.chat.completions.create(model="doge", messages=HELLO, max_tokens=12, stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (text[: text.index(text[1:3])], "stop")


def test_streamed_choices_are_those_of_the_whole_answer(client):
    given = {"model": "doge", "messages": HELLO, "max_completion_tokens": 10, "temperature": 1.5, "seed": 2, "n": 3}
    whole = [choice.message.content for choice in client.chat.completions.create(**given).choices]
    texts, order = ["", "", ""], []
    for chunk in client.chat.completions.create(**given, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        order.append(choice.index)
    assert texts == whole
    assert order != sorted(order)


def test_biased_token_is_chosen(client, engine):
    chosen = engine.encode("a", add_special_tokens=False)[0]
    answer = client.chat.completions.create(
        model="doge",
        messages=HELLO,
        max_tokens=4,
        logit_bias={str(chosen): 100},
        extra_body={"return_token_ids": True},
    )
    assert answer.choices[0].message.content == "aaaa"
    assert answer.choices[0].model_extra["token_ids"] == [chosen] * 4


def test_running_answer_is_cancelled_by_its_id(client, server):
    chunks = client.chat.completions.create(
        model="doge", messages=HELLO, max_tokens=16_000, stream=True, extra_body={"ignore_eos": True}
    )
    first = next(iter(chunks))
    cancelled = httpx.post(f"{server}/openai/chat/cancel/{first.id}")
    assert cancelled.json() == {"id": first.id, "status": "cancelled"}
    assert list(chunks)[-1].choices[0].finish_reason == "stop"
    assert httpx.post(f"{server}/v1/chat/cancel/{first.id}").status_code == 404


@pytest.mark.parametrize("prefix", ["/v1", "/openai", "/openai/v1"])
def test_every_prefix_has_the_whole_family(server, prefix):
    client = openai.OpenAI(base_url=server + prefix, api_key="none", max_retries=0)
    assert client.completions.create(model="doge", prompt="Ada", max_tokens=1).choices
    assert client.responses.create(model="doge", input="Ada", max_output_tokens=1).output
    assert client.embeddings.create(model="doge", input="Ada").data
    assert client.models.retrieve("doge").id == "doge"
    engines = httpx.get(f"{server}{prefix}/engines").json()["data"]
    assert {"id": "doge", "object": "engine", "owner": "small-doge", "ready": True} in engines
    assert httpx.get(f"{server}{prefix}/engines/doge").json()["ready"]
    able = httpx.get(f"{server}{prefix}/models/doge/capabilities").json()["capabilities"]
    assert able["chat"]
    assert not httpx.get(f"{server}{prefix}/models/base/capabilities").json()["capabilities"]["chat"]


def test_description_has_examples_of_requests_and_answers(server):
    described = httpx.get(f"{server}/openapi.json").json()
    schemas = described["components"]["schemas"]
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/api/v1/inspect"):
        route = described["paths"][path]["post"]
        body = route["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for example in schemas[body]["examples"]:
            answer = httpx.post(server + path, json=example, timeout=60)
            assert answer.status_code == 200
            shown = route["responses"]["200"]["content"]["application/json"]["example"]
            assert shown.keys() <= answer.json().keys()
        assert "4XX" in route["responses"]
        assert "422" not in route["responses"]
    assert schemas["CompletionBody"]["properties"]["temperature"]["description"]
