"""Errors that no route makes, in the form of each protocol."""

import threading

import httpx
import pytest
from tests.webui import run_app


HELLO = [{"role": "user", "content": "Where does Ada live?"}]
KEY = {"Authorization": "Bearer secret"}
ANTHROPIC, OLLAMA = "/v1/messages", "/api/chat"
BODIES = {
    ANTHROPIC: {"model": "doge", "messages": HELLO, "max_tokens": 200},
    OLLAMA: {"model": "doge", "messages": HELLO, "options": {"num_predict": 200}},
}
TYPES = {401: "authentication_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error"}


@pytest.fixture(scope="module")
def small_server(models_dir):
    """Address of a server that takes one request at a time, and small ones only."""
    with run_app(
        models=(str(models_dir / "doge"),), threads=1, num_slots=1, max_queue=0, max_body_mib=0.01, api_key="secret"
    ) as (address, _):
        yield address


def check(response, path, status):
    """Check that an error has the form of its protocol, and return its message."""
    assert response.status_code == status
    body = response.json()
    if path == OLLAMA:
        assert list(body) == ["error"]
        return body["error"]
    assert (body["type"], body["error"]["type"]) == ("error", TYPES.get(status, "invalid_request_error"))
    assert body["request_id"] == response.headers["request-id"]
    return body["error"]["message"]


@pytest.mark.parametrize("path", BODIES)
def test_key_is_needed(small_server, path):
    assert "API key" in check(httpx.post(small_server + path, json=BODIES[path]), path, 401)
    key = {"x-api-key": "secret"}
    assert httpx.post(small_server + path, json={**BODIES[path], "stream": False}, headers=key).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_large_body_is_refused(small_server, path):
    response = httpx.post(small_server + path, json={**BODIES[path], "padding": "x" * 20_000}, headers=KEY)
    assert "--max-body-mib" in check(response, path, 413)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("content", [b'{"model": ', b"\xff", b"[" * 5000, b"[]", b"3", b""])
def test_body_that_is_no_request_is_refused(small_server, path, content):
    response = httpx.post(small_server + path, content=content, headers={**KEY, "Content-Type": "application/json"})
    assert check(response, path, 400)


@pytest.mark.parametrize("path", BODIES)
def test_missing_and_wrong_fields_are_named(small_server, path):
    for name, value in (("model", None), ("model", 3), ("messages", 3), ("messages", [3])):
        response = httpx.post(small_server + path, json={**BODIES[path], name: value}, headers=KEY)
        assert check(response, path, 400).startswith(name)
    body = {name: value for name, value in BODIES[path].items() if name != "model"}
    assert check(httpx.post(small_server + path, json=body, headers=KEY), path, 400).startswith("model")


@pytest.mark.parametrize("path", BODIES)
def test_full_queue_is_told(small_server, path):
    busy, done = threading.Event(), threading.Event()

    def occupy():
        body = {"model": "doge", "prompt": "Ada", "stream": True, "max_tokens": 10_000, "ignore_eos": True}
        with httpx.stream("POST", f"{small_server}/v1/completions", json=body, headers=KEY) as response:
            for _ in response.iter_bytes():
                busy.set()
                if done.wait(0):
                    return

    thread = threading.Thread(target=occupy)
    thread.start()
    try:
        assert busy.wait(30)
        response = httpx.post(small_server + path, json=BODIES[path], headers=KEY)
    finally:
        done.set()
        thread.join()
    assert "waiting" in check(response, path, 429)
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", BODIES)
def test_error_within_a_stream_ends_it(models_dir, path):
    with run_app(models=(str(models_dir / "doge"),), threads=1, request_timeout=0.001) as (address, _):
        response = httpx.post(address + path, json={**BODIES[path], "stream": True})
    last = response.text.strip().splitlines()
    assert response.status_code == 200
    if path == OLLAMA:
        assert last[-1].startswith('{"error":"the request took longer')
    else:
        assert last[-2] == "event: error"
        assert '"timeout_error"' in last[-1]


def test_conversations_speak_no_ollama(small_server):
    assert isinstance(httpx.get(f"{small_server}/api/v1/nothing", headers=KEY).json()["error"], dict)
