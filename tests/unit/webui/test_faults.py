"""Senders that do wrong: the right status, and a server that lives on with nothing leaked."""

import asyncio
import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from tests.webui import run_app

from small_doge.webui import connections, security


ASK = b'{"model": "doge", "prompt": "Ada", "max_tokens": 3, "stream": true}'


@pytest.fixture(scope="module")
def app(models_dir):
    with run_app(models=(str(models_dir / "doge"),), threads=1, max_body_mib=1, max_connections=40) as running:
        yield running


@pytest.fixture
def address(app):
    return app[0]


def connect(address):
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def exchange(address, *pieces):
    """Send bytes, and read until the server closes the connection, or nothing comes for a while."""
    with connect(address) as connection:
        for piece in pieces:
            connection.sendall(piece)
        connection.settimeout(3)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def head(address, body=b"", path="/v1/completions", method="POST", *lines):
    host = urlsplit(address).netloc
    fields = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *lines]
    return "\r\n".join([*fields, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body


def is_alive(address):
    return httpx.get(f"{address}/health", timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"prompt": "\xff"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "a", "temperature": NaN}', 400),
        (b'{"prompt": "a", "temperature": Infinity}', 400),
        (b'{"prompt": "a", "temperature": 1e999}', 400),
        (b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", 400),
        (b'{"prompt": "a", "max_tokens": 1' + b"0" * 400 + b"}", 400),
        (b'{"prompt": "a", "seed": 123456789012345678901234567890, "max_tokens": 1}', 200),
        (b'{"prompt": ["a"], "prompt": "a", "max_tokens": 1}', 200),
        (b'{"prompt": ' + b"[" * 100_000, 400),
        (b'{"prompt": "a", "max_tokens": 1, "x": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", None),
        (b'{"prompt": [99999999999999999999]}', 400),
        (b'{"prompt": [-1]}', 400),
        (b'{"prompt": [511, 512]}', 400),
        (b'{"prompt": "a", "stop": ["' + b"x" * 90_000 + b'"], "max_tokens": 1}', 200),
        (b'{"prompt": "' + b"a" * 2**20 + b'"}', 413),
    ],
)
def test_bad_bodies_are_told_and_touch_nothing(address, body, status):
    answer = exchange(address, head(address, body))
    given = int(answer[9:12])
    assert given == status if status else given < 500
    assert is_alive(address)


@pytest.mark.parametrize("kwargs", ['{"messages": 1}', '{"continue_final_message": 1}', '{"tools": []}', '{"x": 1}'])
def test_variables_of_the_template_are_no_way_around_its_arguments(address, kwargs):
    nested = b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "chat_template_kwargs": %s}'
    answer = exchange(address, head(address, nested % kwargs.encode(), "/v1/chat/completions"))
    assert int(answer[9:12]) == (200 if "x" in kwargs else 400)


@pytest.mark.parametrize("depth", [300, 600, 900, 100_000])
def test_deep_nesting_is_no_failure(address, depth):
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    body = (
        b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "chat_template_kwargs": {"a": %s}}' % deep
    )
    for path in ("/v1/chat/completions", "/apply-template", "/api/v1/chats"):
        assert int(exchange(address, head(address, body, path))[9:12]) < 500


def test_chunked_body_is_limited_too(address):
    start = head(address).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    answer = exchange(address, start, *[b"10000\r\n" + b"a" * 65536 + b"\r\n"] * 17)
    assert answer == b"" or int(answer[9:12]) == 413
    assert is_alive(address)


def test_slow_body_times_out(address, monkeypatch):
    monkeypatch.setattr(security, "BODY_SECONDS", 0.3)
    answer = exchange(address, head(address, ASK)[:-20])
    assert int(answer[9:12]) == 408


def test_slow_and_endless_heads_lose_their_connection(address, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    start = time.monotonic()
    assert exchange(address, b"GET / HTTP/1.1\r\nHost: ") == b""
    assert exchange(address, b"") == b""
    assert time.monotonic() - start < 5
    monkeypatch.setattr(connections, "HEAD_SECONDS", 30)
    flood = b"GET /health HTTP/1.1\r\n" + b"X-Long: " + b"a" * 2**18
    with connect(address) as connection, pytest.raises(OSError, match="reset|pipe"):
        connection.sendall(flood * 200)
    assert is_alive(address)


def test_idle_connections_make_room_for_others(address):
    idle = [connect(address) for _ in range(120)]
    try:
        assert all(is_alive(address) for _ in range(5))
    finally:
        for connection in idle:
            connection.close()


def test_pipelined_requests_are_answered_in_order(address):
    host = urlsplit(address).netloc
    first = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    last = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    answer = exchange(address, first + first + last)
    assert answer.count(b"HTTP/1.1 200") == 3 and answer.index(b'"status"') < answer.index(b'"object"')


def test_pipelined_answer_takes_longer_than_a_head_may(address, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    host = urlsplit(address).netloc
    first = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    long = ASK.replace(b'"max_tokens": 3', b'"max_tokens": 2000, "ignore_eos": true')
    start = time.monotonic()
    answer = exchange(address, first + head(address, long))
    assert time.monotonic() - start > 0.3  # else it would prove nothing
    assert answer.endswith(b"0\r\n\r\n")


def test_dropped_connections_leave_nothing_behind(app):
    address, application = app
    entry = application.state.server.registry.find(None)
    assert exchange(address, head(address, ASK)).endswith(b"0\r\n\r\n")
    process = psutil.Process(os.getpid())
    before = process.num_fds()
    long = ASK.replace(b'"max_tokens": 3', b'"max_tokens": 9000, "ignore_eos": true')
    kinds = [b"", head(address, long)[:-10], head(address, long), head(address, b"{}"), b"\x16\x03\x01"]

    def drop(number):
        try:
            with connect(address) as connection:
                connection.sendall(kinds[number % len(kinds)])
                if number % 3:
                    time.sleep(0.002)
        except OSError:
            pass

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(drop, range(1000)))
    for _ in range(1000):
        if process.num_fds() <= before and not entry.num_users and not entry.worker.num_unfinished:
            break
        time.sleep(0.01)
    assert process.num_fds() <= before + 2
    assert entry.num_users == entry.worker.num_unfinished == 0
    assert exchange(address, head(address, ASK)).endswith(b"0\r\n\r\n")


class Transport:
    """A connection of which only the addresses matter."""

    def __init__(self, **names):
        self.names = names

    def get_extra_info(self, name):
        return self.names[name]

    def is_closing(self):
        return False

    def abort(self):
        raise AssertionError("a connection in use was closed")


def test_connections_of_one_client_port_to_two_ports_of_the_server_are_kept_apart():
    async def run():
        client, servers = ("127.0.0.1", 5), (("127.0.0.1", 8000), ("127.0.0.1", 7860))
        waiting = {}

        async def answer(scope, receive, send):
            waiting.update({kept.ends[3]: kept.timer is not None for kept in (first, second)})

        watched = connections.Connections(answer, 9)
        first, second = (watched.add(Transport(peername=client, sockname=server)) for server in servers)
        await watched({"client": client, "server": servers[0]}, None, None)
        assert waiting == {8000: False, 7860: True}
        watched.remove(first)
        assert list(watched.open.values()) == [second]
        watched.remove(second)

    asyncio.run(run())


def test_client_that_never_reads_is_bounded_and_others_go_on(app):
    address, application = app
    entry = application.state.server.registry.find(None)
    with connect(address) as silent:
        long = ASK.replace(b'"max_tokens": 3', b'"max_tokens": 3000, "logprobs": 20, "ignore_eos": true')
        silent.sendall(head(address, long))
        for _ in range(3000):
            if entry.num_users and not entry.worker.num_unfinished:
                break
            time.sleep(0.01)
        assert entry.worker.num_unfinished == 0  # the engine is done with it, and what is left is its bounded answer
        assert is_alive(address)
    for _ in range(500):
        if not entry.num_users:
            break
        time.sleep(0.01)
    assert entry.num_users == 0


def test_client_that_leaves_while_a_model_loads_does_not_stop_the_load(app):
    _, application = app
    registry = application.state.server.registry
    entry = registry.find(None)

    async def leave_and_come():
        await registry.unload(entry)
        first = asyncio.ensure_future(registry.acquire(None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with await registry.acquire(None) as again:
            assert again.is_loaded
        assert entry.num_users == 0

    loop = asyncio.new_event_loop()
    registry._loading = asyncio.Lock()
    try:
        loop.run_until_complete(leave_and_come())
    finally:
        loop.close()
        registry._loading = asyncio.Lock()


PATHS = ("/", "/health", "/v1/models", "/metrics", "/docs", "/openapi.json", "/static/../app.py", "/none", "/api/tags")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "TRACE", "BREW"])
def test_security_headers_are_on_every_response(address, method):
    for path in PATHS:
        answer = exchange(address, head(address, b"", path, method)).split(b"\r\n\r\n")[0].lower()
        status = int(answer[9:12])
        assert status < 500, (path, answer)
        if status != 400 or b"x-content-type-options" in answer:  # h11 itself refuses what is no request
            assert b"x-content-type-options: nosniff" in answer, (path, answer)
            assert b"referrer-policy: no-referrer" in answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("[", 421),
        ("", 421),
        ("10.0.0.1", 421),
        ("a" * 5000, 421),
    ],
)
def test_only_own_names_are_answered(address, host, status):
    answer = exchange(address, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert int(answer[9:12]) == status


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://[::1", "http://127.0.0.1@evil.example"])
def test_pages_of_others_are_refused(address, origin):
    assert httpx.get(f"{address}/v1/models", headers={"Origin": origin}).status_code == 403
    assert httpx.get(f"{address}/v1/models", headers={"Origin": address}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/..\\app.py",
        "/static/%00",
        "/v1/models/..%2f..%2f..%2fetc",
        "/v1/models/%2fetc%2fpasswd",
        "/v1/models/../../etc",
        "/api/v1/models/%2e%2e%2fdoge/status",
    ],
)
def test_paths_do_not_lead_out(address, path):
    answer = exchange(address, head(address, b"", path, "GET"))
    assert int(answer[9:12]) in (400, 404)
    assert b"root:" not in answer and b"def create_app" not in answer


@pytest.mark.parametrize("action", ["status", "load", "unload"])
@pytest.mark.parametrize(
    "name",
    [
        "../other",
        "..%2fother",
        "%2e%2e%2fother",
        "%2E%2E/other",
        "..%5cother",
        "doge%2f..%2fother",
        "doge%2f",
        "%2fdoge",
        "%2fetc%2fpasswd",
        "doge%00",
        "doge%0d%0aX-Other:1",
        "%ff",
        "%252e%252e%252fother",
        "",
        "/",
        ".",
        "doge?name=",
        "a" * 5000,
        "doge/status",
    ],
)
def test_names_of_models_in_paths_are_names_alone(address, name, action):
    method = "GET" if action == "status" else "POST"
    answer = exchange(address, head(address, b"", f"/api/v1/models/{name}/{action}", method))
    assert int(answer[9:12]) in (400, 404, 405), answer
    assert b"root:" not in answer and b"\r\nX-Other" not in answer


def test_a_name_with_a_slash_is_found_plain_and_encoded(models_dir, tmp_path):
    shutil.copytree(models_dir / "doge", tmp_path / "in" / "ner")
    with run_app(models_dir=str(tmp_path), threads=1) as (address, _):
        for name in ("in/ner", "in%2Fner", "in%2fner:latest"):
            for method, action in (("POST", "load"), ("GET", "status"), ("POST", "unload")):
                answer = exchange(address, head(address, b"", f"/api/v1/models/{name}/{action}", method))
                assert int(answer[9:12]) == 200 and b'"id":"in/ner"' in answer


@pytest.fixture(scope="module")
def locked(models_dir):
    settings = {"models": (str(models_dir / "doge"),), "threads": 1, "api_key": "secret"}
    with run_app(**settings, cors_origins=["https://page.example"]) as (address, application):
        yield address, application


def test_every_route_but_the_page_needs_the_key(locked):
    address, application = locked
    schema = application.openapi()
    paths = [(method, path) for path, methods in schema["paths"].items() for method in methods]
    assert len(paths) > 20
    paths += [("get", path) for path in ("/docs", "/redoc", "/openapi.json", "/none", "/openai/models")]
    with httpx.Client(base_url=address) as client:
        for method, path in paths:
            status = 200 if path in ("/health", "/docs", "/openapi.json") else 401
            assert client.request(method, path.replace("{", "").replace("}", "")).status_code == status, path
        for path in ("/", "/health"):
            assert client.get(path).status_code == 200
        for headers in (
            {"Authorization": "Bearer secret"},
            {"x-api-key": "secret"},
            {"authorization": "bearer secret"},
        ):
            assert client.get("/v1/models", headers=headers).status_code == 200
        for key in ("Secret", "secret2", "", "sécret"):
            assert client.get("/v1/models", headers={"x-api-key": key.encode()}).status_code == 401


def test_pages_that_are_allowed_may_call(locked):
    address, _ = locked
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{address}/v1/models", headers=headers)
    assert answer.status_code == 204 and answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert httpx.options(f"{address}/v1/models", headers={**headers, "Origin": "https://x.example"}).status_code == 403


def test_other_pages_may_see_that_the_server_is_there_and_nothing_more(address):
    kinds = {path: httpx.get(f"{address}{path}").headers["Cross-Origin-Resource-Policy"] for path in PATHS}
    assert {path for path, kind in kinds.items() if kind == "cross-origin"} == {"/health"}
    refused = httpx.get(f"{address}/health", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403 and refused.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_head_is_answered_where_get_is(server):
    with httpx.Client(base_url=server) as client:
        for path in ("/health", "/v1/models", "/docs", "/"):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
        assert client.head("/v1/chat/completions").status_code == 405
