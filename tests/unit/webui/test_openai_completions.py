"""`/v1/completions`, through OpenAI's own client."""

import httpx
import openai
import pytest


PROMPT = "Ada lives in"


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def ask(client, **given):
    return client.completions.create(**{"model": "doge", "prompt": PROMPT, "max_tokens": 8, **given})


def join(chunks):
    """Put the chunks of a stream together, by choice: the texts, all log-probabilities, and the reasons."""
    joined = {}
    for chunk in chunks:
        for choice in chunk.choices:
            known = joined.setdefault(choice.index, {"text": "", "tokens": [], "text_offset": [], "reason": None})
            known["text"] += choice.text
            known["reason"] = choice.finish_reason or known["reason"]
            if choice.logprobs is not None:
                known["tokens"] += choice.logprobs.tokens
                known["text_offset"] += choice.logprobs.text_offset
    return joined


@pytest.mark.parametrize("prompt", [PROMPT, [5, 6, 7]])
def test_text_is_the_engines(client, engine, prompt):
    choice = ask(client, prompt=prompt).choices[0]
    assert choice.text == engine.generate(prompt, max_new_tokens=8)
    assert choice.logprobs is None
    assert ask(client, prompt=prompt, echo=True).choices[0].text == (
        engine.decode(engine.encode(prompt) if isinstance(prompt, str) else prompt, skip_special_tokens=True)
        + choice.text
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompts", [["Ada", "Bob and", "Cleo"], [[5, 6], [7], [8, 9, 10]]])
def test_several_prompts_are_answered_in_their_order(client, engine, prompts, stream):
    answer = ask(client, prompt=prompts, n=2, stream=stream)
    if stream:
        texts = [known["text"] for _, known in sorted(join(answer).items())]
    else:
        texts = [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
        ids = [engine.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        assert answer.usage.prompt_tokens == sum(map(len, ids))
        assert answer.usage.completion_tokens == 6 * 8
    assert texts == [text for prompt in prompts for text in [engine.generate(prompt, max_new_tokens=8)] * 2]


def test_seeded_answers_do_not_depend_on_the_other_prompts(client):
    given = {"temperature": 1.5, "seed": 4, "n": 2}
    together = [choice.text for choice in ask(client, prompt=["Ada", "Bob"], **given).choices]
    alone = [choice.text for prompt in ("Ada", "Bob") for choice in ask(client, prompt=prompt, **given).choices]
    assert together == alone
    assert len(set(together)) > 2


def test_prompt_is_scored_without_an_answer(client, engine):
    ids = engine.encode(PROMPT)
    scored = engine.score(ids, top=3)
    answer = ask(client, prompt=ids, max_tokens=0, echo=True, logprobs=3)
    choice = answer.choices[0]
    assert choice.text == PROMPT
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("length", 0)
    assert choice.logprobs.tokens == [engine.piece(token) for token in ids]
    assert choice.logprobs.token_logprobs[0] is choice.logprobs.top_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx([token.logprob for token in scored[1:]], abs=1e-4)
    for top, token in zip(choice.logprobs.top_logprobs[1:], scored[1:], strict=True):
        assert set(top) == {engine.piece(found) for found in (*token.top_logprobs, token.id)}
    (streamed,) = join(ask(client, prompt=ids, max_tokens=0, echo=True, logprobs=3, stream=True)).values()
    assert streamed["text"] == PROMPT
    assert streamed["reason"] == "length"
    assert streamed["tokens"] == choice.logprobs.tokens


def test_harness_reads_log_likelihoods(client, engine):
    """What lm-evaluation-harness does of token ids: the continuation's probabilities, and whether it is the likeliest."""
    context, continuation = engine.encode("Ada lives"), [40, 41]
    likeliest = list(engine.stream(context, max_new_tokens=2))
    for tail in (continuation, likeliest):
        ids = [*context, *tail]
        given = {"max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0, "seed": 1234}
        logprobs = ask(client, prompt=[ids], **given).choices[0].logprobs
        found = logprobs.token_logprobs[len(context) : -1]
        expected = [token.logprob for token in engine.score(ids)[len(context) :]]
        assert found == pytest.approx(expected, abs=1e-4)
        pairs = zip(logprobs.tokens[len(context) : -1], logprobs.top_logprobs[len(context) : -1], strict=True)
        assert all(token == max(top, key=top.get) for token, top in pairs) == (tail == likeliest)


def test_offsets_count_characters(client, engine):
    text = "Zoë 🐕 and Éva"
    given = {"prompt": text, "echo": True, "logprobs": 0, "max_tokens": 12}
    choice = ask(client, **given).choices[0]
    assert choice.text.startswith(text)
    pieces = [engine.token_bytes(token) for token in engine.encode(text)]
    special = {token.content.encode() for token in engine.tokenizer.added_tokens_decoder.values() if token.special}
    written, expected = b"", []
    for piece in pieces:
        expected.append(len(written.decode("utf-8", errors="ignore")))
        written += b"" if piece in special else piece
    assert choice.logprobs.text_offset[: len(pieces)] == expected
    assert choice.logprobs.text_offset == sorted(choice.logprobs.text_offset)
    assert choice.logprobs.text_offset[len(pieces)] == len(text)
    (streamed,) = join(ask(client, stream=True, **given)).values()
    assert streamed["text_offset"] == choice.logprobs.text_offset
    assert streamed["text"] == choice.text


def test_token_ids_come_with_the_text(server, engine):
    body = {"prompt": ["Ada", "Bob"], "max_tokens": 4, "logprobs": 2, "return_token_ids": True}
    choices = httpx.post(f"{server}/v1/completions", json=body).json()["choices"]
    for prompt, choice in zip(body["prompt"], choices, strict=True):
        ids = engine.encode(prompt)
        assert choice["prompt_token_ids"] == ids
        assert choice["token_ids"] == choice["logprobs"]["token_ids"] == list(engine.stream(ids, max_new_tokens=4))
        for top, token_id in zip(choice["logprobs"]["top_tokens"], choice["token_ids"], strict=True):
            assert len(top) == 2
            assert top[0] == {"id": token_id, "text": engine.piece(token_id), "logprob": top[0]["logprob"]}


def test_stop_texts_end_an_answer(client, engine):
    text = engine.generate(PROMPT, max_new_tokens=8)
    for stop in (text[1:3], [text[1:3], "none of this"]):
        choice = ask(client, stop=stop).choices[0]
        assert (choice.text, choice.finish_reason) == (text[: text.index(text[1:3])], "stop")


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ({"suffix": "end"}, "suffix is not supported", "suffix"),
        ({"best_of": 3}, "best_of is not supported", "best_of"),
        ({"logprobs": 21}, "logprobs", "logprobs"),
        ({"n": 0}, "n:", "n"),
        ({"prompt": []}, "prompt is empty", None),
        ({"prompt": [[]]}, "prompt is empty", "prompt"),
        ({"prompt": [5, 100_000]}, "prompt holds token 100000", "prompt"),
        ({"prompt": ["x"] * 60, "n": 2}, "--max-queue", "prompt"),
        ({"max_tokens": -1}, "max_tokens=-1", "max_tokens"),
        ({"extra_body": {"prompt": {"text": "x"}}}, "prompt", None),
        ({"extra_body": {"echo": "yes"}}, "echo", "echo"),
    ],
)
def test_what_cannot_be_done_is_said(client, given, said, param):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(client, **given)
    assert param is None or caught.value.param == param
