"""An option that is refused is named as the client wrote it, in every protocol."""

import re
from dataclasses import fields

import httpx
import pytest
from tests.webui import run_app

from small_doge.inference import SamplingOptions


HELLO = [{"role": "user", "content": "Where does Ada live?"}]
BODIES = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Ada"},
    "/v1/responses": {"input": "Ada"},
    "/v1/messages": {"model": "doge", "messages": HELLO, "max_tokens": 2},
    "/api/chat": {"model": "doge", "messages": HELLO, "stream": False},
    "/api/generate": {"model": "doge", "prompt": "Ada", "stream": False},
    "/v1/embeddings": {"input": "Ada"},
    "/api/v1/inspect": {},
}
OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
OLLAMA = ("/api/chat", "/api/generate")
NO_SCHEMA = {"type": "text"}  # no type of JSON
PATTERN = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}, "required": ["a"]}
# Paths, the field as the client writes it, and a value that is refused by what is behind the protocol.
CASES = [
    *[
        (OPENAI, name, value)
        for name, value in {
            "temperature": -1.0,
            "top_p": 2.0,
            "min_p": -0.5,
            "repetition_penalty": 0.0,
            "presence_penalty": 1e9,
            "frequency_penalty": 1e9,
            "stop": "",
            "stop_token_ids": [-1],
            "logit_bias": {"-1": 1.0},
            "max_tokens": -1,
        }.items()
    ],
    (OPENAI, "max_tokens", 10**6),
    (OPENAI, "logit_bias", {"100000": 1.0}),
    (OPENAI, "stop_token_ids", [10**6]),
    (OPENAI[:1], "max_completion_tokens", -1),
    (OPENAI[:1], "max_completion_tokens", 10**6),
    (
        OPENAI[:1],
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "x", "schema": NO_SCHEMA}},
    ),
    (OPENAI[:1], "tools", [{"type": "function", "function": {"name": "f", "parameters": PATTERN}}]),
    (OPENAI[1:2], "prompt", [-1]),
    (OPENAI[2:], "max_output_tokens", -1),
    (OPENAI[2:], "max_output_tokens", 10**6),
    (OPENAI[2:], "text.format", {"type": "json_schema", "schema": NO_SCHEMA}),
    (OPENAI[2:], "tools", [{"type": "function", "name": "f", "parameters": PATTERN}]),
    (("/v1/messages",), "temperature", -1.0),
    (("/v1/messages",), "top_p", 2.0),
    (("/v1/messages",), "max_tokens", 10**6),
    (("/v1/messages",), "stop_sequences", [""]),
    (("/v1/messages",), "output_config.format", {"type": "json_schema", "schema": NO_SCHEMA}),
    (("/v1/messages",), "tools", [{"name": "f", "input_schema": PATTERN}]),
    *[
        (OLLAMA, f"options.{name}", value)
        for name, value in {
            "num_predict": 2.5,
            "temperature": -1.0,
            "top_k": 2.5,
            "top_p": 2.0,
            "min_p": -0.5,
            "seed": "x",
            "stop": [""],
            "repeat_penalty": 0.0,
            "presence_penalty": 1e9,
            "frequency_penalty": 1e9,
            "mirostat": 1,
        }.items()
    ],
    (OLLAMA, "options.num_predict", 10**6),
    (OLLAMA, "format", NO_SCHEMA),
    (OLLAMA[:1], "tools", [{"type": "function", "function": {"name": "f", "parameters": PATTERN}}]),
    (OLLAMA[1:], "context", [-1]),
    (("/v1/embeddings",), "input", [-1]),
    (("/v1/embeddings",), "dimensions", 7),
    (("/api/v1/inspect",), "tokens", [-1]),
]
OURS = {option.name for option in fields(SamplingOptions)}


@pytest.mark.parametrize(
    ("path", "field", "value"), [(path, field, value) for paths, field, value in CASES for path in paths]
)
def test_refused_option_has_the_clients_name(server, path, field, value):
    outer, _, inner = field.partition(".")
    response = httpx.post(server + path, json={**BODIES[path], outer: {inner: value} if inner else value}, timeout=60)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    said = error if isinstance(error, str) else error["message"]
    assert re.match(rf"{re.escape(field)}\b", said), said
    written = set(re.findall(r"[a-z_]+", said.removeprefix(field)))
    assert not OURS & written - {"stop", "seed", "grammar"}, said
    if (path.startswith("/v1/") and path != "/v1/messages") or path.startswith("/api/v1/"):
        assert error["param"] == field


def test_every_option_with_a_name_of_its_own_is_tried():
    from small_doge.webui.routes.ollama_input import OPTIONS

    tried = {field for _, field, _ in CASES}
    assert {f"options.{name}" for name in OPTIONS} <= tried


@pytest.mark.parametrize(
    ("path", "given", "said"),
    [
        ("/v1/chat/completions", {"stop": 3}, "stop: Input should be a valid string; or Input should be a valid list"),
        ("/v1/chat/completions", {"stop": ["x", 3]}, "stop.1: Input should be a valid string"),
        ("/v1/chat/completions", {"stream_options": {"include_usage": 1}}, "stream_options.include_usage: "),
        ("/v1/chat/completions", {"messages": [HELLO[0], 3]}, "messages.1: Input should be a valid dictionary"),
        ("/v1/completions", {"prompt": [[1, "x"]]}, "prompt.0.1: Input should be a valid integer"),
        ("/v1/completions", {"temperature": "hot"}, "temperature: Input should be a valid number"),
        ("/v1/messages", {"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ("/v1/messages", {"stop_sequences": "x"}, "stop_sequences: Input should be a valid list"),
        ("/api/chat", {"format": 3}, "format: Input should be a valid string; or Input should be a valid dictionary"),
        ("/api/chat", {"options": [1]}, "options: Input should be a valid dictionary"),
        ("/api/v1/chats", {"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
    ],
)
def test_field_of_a_wrong_type_is_named_without_names_of_types(server, path, given, said):
    response = httpx.post(server + path, json={**BODIES.get(path, {}), **given}, timeout=60)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error if isinstance(error, str) else error["message"]).startswith(said)
    if path in OPENAI:
        assert error["param"] == next(iter(given))


@pytest.fixture(scope="module")
def short(models_dir):
    """Address of a server whose model takes 256 tokens."""
    with run_app(models=(str(models_dir / "doge"),), threads=1) as (address, application):
        assert httpx.post(f"{address}/api/v1/models/doge/load", timeout=60).status_code == 200
        application.state.server.registry.find("doge").engine.backend.max_length = 256
        yield address


@pytest.mark.parametrize(
    ("path", "given", "param"),
    [
        ("/v1/completions", {"prompt": [5] * 300}, "prompt"),
        ("/v1/embeddings", {"input": [5] * 300}, "input"),
        ("/v1/responses", {"input": "Ada " * 5000}, "input"),
        ("/v1/responses/input_tokens", {"input": "Ada " * 5000}, "input"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Ada " * 5000}]}, "messages"),
        ("/api/v1/inspect", {"tokens": [5] * 300}, "tokens"),
    ],
)
def test_prompt_that_is_too_long_has_the_clients_name_and_a_code_for_programs(short, path, given, param):
    error = httpx.post(short + path, json=given, timeout=60).json()["error"]
    assert (error["param"], error["code"]) == (param, "context_length_exceeded"), error
