"""The Ollama API, through Ollama's own client."""

import asyncio
import json

import httpx
import numpy as np
import ollama
import pytest
from tests.webui import run_app


HELLO = [{"role": "user", "content": "Where does Ada live?"}]
TWELVE = {"num_predict": 12}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
    },
}
# What makes a model without knowledge write the beginning of a call.
CALL = '{"name": "add", "arguments": {"a": 1}}'


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(server)


def test_chat_is_the_engines(client, engine):
    answer = client.chat("doge", HELLO, options=TWELVE)
    assert answer.message.content == "".join(engine.chat(HELLO, max_new_tokens=12))
    assert (answer.model, answer.done, answer.done_reason) == ("doge", True, "length")
    assert (answer.prompt_eval_count, answer.eval_count) == (len(engine.render(HELLO)), 12)
    assert answer.total_duration >= answer.prompt_eval_duration + answer.eval_duration > 0


def test_chat_streams(client, engine):
    lines = list(client.chat("doge:latest", HELLO, options=TWELVE, stream=True))
    assert "".join(line.message.content for line in lines) == "".join(engine.chat(HELLO, max_new_tokens=12))
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 1  # as many as the reader was quick enough for
    assert lines[-1].eval_count == 12


def test_lines_come_unless_stream_is_false(server):
    response = httpx.post(
        f"{server}/api/generate", json={"model": "doge", "prompt": "Ada", "options": {"num_predict": 2}}
    )
    assert response.headers["content-type"] == "application/x-ndjson"
    assert json.loads(response.text.splitlines()[-1])["done"] is True


def test_curl_without_a_content_type_is_understood(server):
    content = json.dumps({"model": "doge", "prompt": "Ada", "stream": False, "options": {"num_predict": 2}})
    for kind in ("application/x-www-form-urlencoded", None):
        headers = {"Content-Type": kind} if kind else {}
        response = httpx.post(f"{server}/api/generate", content=content, headers=headers)
        assert response.json()["done"] is True


def test_async_client_streams(server, engine):
    async def read():
        answer = await ollama.AsyncClient(server).chat("doge", HELLO, options=TWELVE, stream=True)
        return "".join([line.message.content async for line in answer])

    assert asyncio.run(read()) == "".join(engine.chat(HELLO, max_new_tokens=12))


def test_last_message_of_the_assistant_is_continued(client, engine):
    messages = [*HELLO, {"role": "assistant", "content": "Ada lives"}]
    ids = engine.render(messages, continue_final_message=True)
    answer = client.chat("doge", messages, options=TWELVE)
    assert answer.message.content == engine.generate(ids, max_new_tokens=12)


def test_prompt_is_answered_in_the_form_of_a_chat(client, engine):
    answer = client.generate("doge", "Where does Ada live?", system="Be brief.", options=TWELVE)
    told = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert answer.response == "".join(engine.chat(told, max_new_tokens=12))
    lines = client.generate("doge", "Where does Ada live?", system="Be brief.", options=TWELVE, stream=True)
    assert "".join(line.response for line in lines) == answer.response


def test_raw_prompt_is_continued_and_so_is_that_of_a_base_model(client, engine):
    answer = client.generate("doge", "Ada lives in", raw=True, options=TWELVE)
    assert answer.response == engine.generate("Ada lives in", max_new_tokens=12)
    assert client.generate("base", "Ada lives in", options=TWELVE).prompt_eval_count == len(
        engine.encode("Ada lives in")
    )


def test_context_is_what_was_said_before(client, engine):
    first = client.generate("doge", "Where does Ada live?", options=TWELVE)
    prompt = engine.render(HELLO)
    assert list(first.context[: len(prompt)]) == prompt
    assert len(first.context) == len(prompt) + 12
    second = client.generate("doge", "And Ben?", context=first.context, options={"num_predict": 1})
    turn = engine.render([{"role": "user", "content": "And Ben?"}])[1:]  # without the token that begins a text
    assert list(second.context[:-1]) == [*first.context, *turn]


def test_options_reach_the_sampler(client, engine):
    options = {"temperature": 1.5, "seed": 7, "top_k": 20.0, "min_p": 0.01, "repeat_penalty": 1.3, "num_predict": 8}
    answer = client.chat("doge", HELLO, options=options)
    sampling = {"temperature": 1.5, "seed": 7, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.3}
    assert answer.message.content == "".join(engine.chat(HELLO, max_new_tokens=8, **sampling))


def test_stop_ends_the_answer(client, engine):
    text = "".join(engine.chat(HELLO, max_new_tokens=12))
    answer = client.chat("doge", HELLO, options={**TWELVE, "stop": [text[3:6]]})
    assert (answer.message.content, answer.done_reason) == (text[: text.index(text[3:6])], "stop")


def test_format_shapes_the_answer(client):
    given = {"messages": HELLO, "options": {"num_predict": 60, "temperature": 1, "seed": 1}}
    assert client.chat("doge", format={"enum": ["red", "blue"]}, **given).message.content in ('"red"', '"blue"')
    assert client.chat("doge", format="json", **given).message.content.startswith("{")


def test_tool_calls_are_told_apart(client, engine, monkeypatch):
    # Begun for the model, which never saw a tool, the answer is nothing but a call.
    monkeypatch.setattr(
        "small_doge.webui.routes.ollama_input.build_tool_grammar", lambda tools: f"start: {json.dumps(CALL)}"
    )
    for stream in (False, True):
        answer = client.chat("doge", HELLO, tools=[ADD], stream=stream, options={"num_predict": 80})
        messages = [line.message for line in answer] if stream else [answer.message]
        calls = [call for message in messages for call in message.tool_calls or []]
        assert [(call.function.name, call.function.arguments) for call in calls] == [("add", {"a": 1})]
        assert "".join(message.content or "" for message in messages) == ""


def test_tool_results_are_taken(client, engine):
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "add", "content": "3"},
    ]
    assert client.chat("doge", messages, options=TWELVE).prompt_eval_count == len(engine.render(messages))


def test_probabilities_are_those_of_all_tokens(client, engine):
    lines = list(client.chat("doge", HELLO, options=TWELVE, logprobs=True, top_logprobs=2, stream=True))
    told = [entry for line in lines for entry in line.logprobs or []]
    expected = list(engine.stream_tokens(engine.render(HELLO), max_new_tokens=12, logprobs=2))
    assert [entry.logprob for entry in told] == [token.logprob for token in expected]
    assert all(len(entry.top_logprobs) == 2 for entry in told)


def test_models_are_described(client, server):
    models = {model.model: model for model in client.list().models}
    assert {"doge:latest", "base:latest"} <= set(models)
    assert models["doge:latest"].digest == client.list().models[0].digest
    assert models["doge:latest"].details.family == "doge"
    shown = client.show("doge")
    assert "start_header_id" in shown.template
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert shown.modelinfo["doge.block_count"] == 2
    assert client.show("base").capabilities == ["completion", "embedding"]
    assert httpx.get(f"{server}/api/version").json()["version"]
    for path in ("/", "/api/tags", "/api/version"):
        assert httpx.head(server + path).status_code == 200


def test_texts_are_embedded(client, server, engine):
    answer = client.embed("doge", ["Ada lives in Pinewood.", "Ben"])
    expected = engine.embed(engine.encode("Ada lives in Pinewood."))
    assert answer.embeddings[0] == pytest.approx((expected / np.linalg.norm(expected)).tolist(), abs=1e-5)
    assert answer.prompt_eval_count == len(engine.encode("Ada lives in Pinewood.")) + len(engine.encode("Ben"))
    old = client.embeddings("doge", "Ben")
    assert list(old.embedding) == pytest.approx(list(answer.embeddings[1]), abs=1e-6)
    response = httpx.post(f"{server}/api/embed", json={"model": "doge", "input": "x", "truncate": True})
    assert response.headers["X-Small-Doge-Ignored"] == "truncate"
    response = httpx.post(f"{server}/api/embed", json={"model": "doge", "input": "x", "dimensions": 4})
    assert "dimensions=4: this model's embeddings have 64" in response.json()["error"]


def test_empty_requests_load_and_unload(client):
    assert client.generate("other").done_reason == "load"
    assert "other:latest" in [model.model for model in client.ps().models]
    assert client.chat("other", keep_alive=0).done_reason == "unload"
    assert "other:latest" not in [model.model for model in client.ps().models]
    assert client.chat("other", HELLO, options={"num_predict": 1}, keep_alive="0s").done
    assert "other:latest" not in [model.model for model in client.ps().models]
    assert client.generate("other", keep_alive="10m").done_reason == "load"
    assert "other:latest" in [model.model for model in client.ps().models]


def test_pull_of_a_model_that_is_there_succeeds(client):
    assert client.pull("doge").status == "success"
    assert [line.status for line in client.pull("doge", stream=True)] == ["success"]


@pytest.mark.parametrize(
    ("path", "given", "status", "said"),
    [
        ("chat", {"model": "dogge"}, 404, "did you mean 'doge'"),
        ("chat", {"model": ""}, 400, "model: "),
        ("chat", {"model": None}, 400, "model: "),
        ("chat", {"messages": "Hello"}, 400, "messages: "),
        ("chat", {"messages": [{"content": "Hello"}]}, 400, r"messages[0].role"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, 400, "reads text alone"),
        ("chat", {"options": {"temperature": "hot"}}, 400, "temperature"),
        ("chat", {"options": {"mirostat": 2}}, 400, "options.mirostat is not supported"),
        ("chat", {"options": {"num_predict": 10**6}}, 400, "--max-output-tokens"),
        ("chat", {"format": "yaml"}, 400, "format="),
        ("chat", {"keep_alive": "soon"}, 400, "keep_alive="),
        ("chat", {"tools": [{"function": {}}]}, 400, "tools[0]"),
        ("generate", {"suffix": "end"}, 400, "suffix is not supported"),
        ("generate", {"template": "{{ .Prompt }}"}, 400, "template is not supported"),
        ("generate", {"images": ["aGk="]}, 400, "images is not supported"),
        ("generate", {"raw": True, "system": "x"}, 400, "raw sends the prompt alone"),
        ("generate", {"model": "base", "system": "x"}, 400, "no chat template"),
        ("generate", {"context": [10**6]}, 400, "token 1000000"),
        ("generate", {"context": [-1]}, 400, "context[0]=-1"),
        ("show", {"model": "dogge"}, 404, "did you mean 'doge'"),
        ("pull", {"model": "llama"}, 404, "llama"),
        ("create", {}, 400, "--models-dir"),
        ("nothing", {}, 404, "nothing at this path"),
    ],
)
def test_what_cannot_be_done_is_said(server, path, given, status, said):
    asked = {"model": "doge", "messages": HELLO, **given}
    if path == "generate":
        asked = {"model": "doge", "prompt": "Ada", **given}
    response = httpx.post(f"{server}/api/{path}", json={**asked, "stream": False})
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert said in response.json()["error"]


def test_bodies_that_are_no_json_are_refused(server):
    for headers in ({}, {"Content-Type": "application/json"}):
        response = httpx.post(f"{server}/api/chat", content=b'{"model": "do', headers=headers)
        assert response.status_code == 400
        assert "no JSON" in response.json()["error"]


def test_options_without_effect_are_named_in_a_header(server):
    asked = {"model": "doge", "prompt": "Ada", "options": {"num_ctx": 8192, "num_predict": 1}, "colour": "red"}
    assert (
        httpx.post(f"{server}/api/generate", json=asked).headers["X-Small-Doge-Ignored"] == "colour, options.num_ctx"
    )


def test_values_that_mean_all_are_understood(models_dir):
    with run_app(models=(str(models_dir / "doge"),), threads=1, max_output_tokens=20) as (address, _):
        for given in ({"num_predict": -1}, {"num_predict": -2}, {"seed": -1}, {"top_k": -1}):
            asked = {"model": "doge", "prompt": "Ada", "options": {"num_predict": 2, **given}, "stream": False}
            answer = httpx.post(f"{address}/api/generate", json=asked, timeout=60).json()
            assert answer["eval_count"] == (20 if "num_predict" in given else 2)
