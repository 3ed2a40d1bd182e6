"""The chat completions of the OpenAI API, through OpenAI's own client."""

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
    ],
)
def test_what_cannot_be_done_is_said(client, field, value, said):
    given = {"model": "doge", "messages": HELLO, "max_tokens": 2, field: value}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=said):
        client.chat.completions.create(**given)


def test_unknown_fields_are_named_in_a_header(client):
    response = client.chat.completions.with_raw_response.create(
        model="doge", messages=HELLO, max_tokens=1, extra_body={"colour": "red"}
    )
    assert response.headers["X-Small-Doge-Ignored"] == "colour"
