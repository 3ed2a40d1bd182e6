"""Clients that leave at each possible moment, and more of them than the server takes: nothing stays behind."""

import asyncio
import json
import random
import sys
import threading

import pytest

from small_doge.webui.app import create_app
from small_doge.webui.control import describe_status
from small_doge.webui.errors import ApiError
from small_doge.webui.model_files import estimate_bytes
from small_doge.webui.settings import ServeSettings


TURNS = [*range(16), *(round(16 * 1.35**power) for power in range(1, 20))]
LONG = {"max_tokens": 40, "ignore_eos": True}
QUESTION = [{"role": "user", "content": "Where does Ada live?"}]
ASKED = {
    "a stream": ("/v1/completions", {"prompt": "Ada", "stream": True, **LONG}),
    "several choices": ("/v1/chat/completions", {"messages": QUESTION, "n": 3, **LONG}),
    "a prompt that is read": (
        "/v1/completions",
        {"prompt": "Ada " * 60, "echo": True, "logprobs": 1, "max_tokens": 0},
    ),
    "embeddings": ("/v1/embeddings", {"input": ["Ada", "Bob"]}),
    "lines": ("/api/generate", {"model": "doge", "prompt": "Ada", "options": {"num_predict": 40}}),
    "tokens": ("/tokenize", {"content": "Ada " * 500}),
}


async def ask(app, path, body, turns=None):
    """Send a request, and leave after some turns of the event loop; return its status and whether its answer was whole."""
    requests = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent, gone = [], asyncio.Event()

    async def receive():
        if requests:
            return requests.pop()
        if turns is None:
            await asyncio.Event().wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        gone.set()
        return {"type": "http.disconnect"}

    async def send(message):
        if gone.is_set():
            raise OSError("the client is gone")
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    await asyncio.wait_for(app({**scope, "scheme": "http", "root_path": ""}, receive, send), 60)
    status = sent[0]["status"] if sent else None
    return status, bool(sent) and sent[-1]["type"] == "http.response.body" and not sent[-1].get("more_body", False)


@pytest.fixture
def serve(models_dir, tmp_path):
    """Run work on an application and its first model."""

    def run(work, **settings):
        given = {"models": (str(models_dir / "doge"),), "models_dir": str(models_dir), "threads": 1, **settings}
        app = create_app(ServeSettings(**given, chats=str(tmp_path / "chats.db")), lambda text: None)
        registry = app.state.server.registry

        async def live():
            try:
                await work(app, registry)
            finally:
                await registry.close(0)

        asyncio.run(live())

    return run


async def settle(entry):
    """Wait until nobody uses a model any more."""
    for _ in range(3000):
        if not entry.num_users and not (entry.is_loaded and entry.worker.num_unfinished):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{entry.num_users} users and {entry.worker.num_unfinished} requests stay")


@pytest.mark.parametrize("kind", ASKED)
def test_client_that_leaves_after_any_turn_of_the_event_loop_leaves_nothing_behind(serve, kind):
    async def work(app, registry):
        entry = registry.find(None)
        assert await ask(app, *ASKED[kind]) == (200, True)
        for turns in TURNS:
            status, _ = await ask(app, *ASKED[kind], turns)
            assert status in (None, 200)
            await settle(entry)
        for turns in TURNS[::5]:
            await registry.unload(entry)
            await ask(app, *ASKED[kind], turns)
            for _ in range(3000):  # the load goes on for others
                if entry.loading is None:
                    break
                await asyncio.sleep(0.01)
            await settle(entry)
        assert await ask(app, *ASKED[kind]) == (200, True)
        scheduler = entry.engine.scheduler
        assert not (scheduler.running or scheduler.waiting or scheduler.prefilling)

    serve(work)


def test_burst_is_answered_or_refused_and_nothing_else(serve):
    async def work(app, registry):
        body = {"prompt": "Ada", "stream": True, "max_tokens": 60, "ignore_eos": True}
        for leave in (None, 300):
            answers = await asyncio.gather(*(ask(app, "/v1/completions", body, leave) for _ in range(120)))
            statuses = [status for status, _ in answers]
            assert set(statuses) <= ({200, 429} if leave is None else {200, 429, None})
            if leave is None:
                assert statuses.count(200) >= 5 and statuses.count(429) >= 1
                assert all(is_whole for _, is_whole in answers)
            await settle(registry.find(None))
        assert await ask(app, "/v1/completions", body) == (200, True)

    serve(work, num_slots=2, max_queue=3)


def test_models_change_places_while_they_are_asked_and_listed_and_none_is_used_unloaded(serve):
    failures, refused, done = [], set(), threading.Event()

    def list_models(registry):
        while not done.is_set():
            for entry in registry.entries.values():
                try:
                    describe_status(entry)
                except Exception as error:  # noqa: BLE001
                    failures.append(error)

    async def work(app, registry):
        draw = random.Random(0)
        registry.budget = max(estimate_bytes(entry.folder) for entry in registry.entries.values())  # for one
        lister = threading.Thread(target=list_models, args=(registry,))
        lister.start()

        async def use(name):
            try:
                with await registry.acquire(name) as entry:
                    engine = entry.engine
                    await asyncio.sleep(draw.random() / 100)
                    stream = entry.worker.submit([engine.prepare([5, 6], max_new_tokens=2, ignore_eos=True)])[0]
                    while not stream.is_done:
                        stream.news.clear()
                        if not stream.take():
                            await asyncio.wait_for(stream.news.wait(), 30)
                    stream.check()
                    assert entry.is_loaded and entry.engine is engine and len(stream.tokens) == 2
            except ApiError as error:
                refused.add(error.code)

        async def unload(name):
            try:
                await registry.unload(registry.find(name))
            except ApiError as error:
                refused.add(error.code)

        for _ in range(12):
            names = [draw.choice(["doge", "other", "base"]) for _ in range(6)]
            await asyncio.gather(*(draw.choice([use, use, unload])(name) for name in names))
        done.set()
        lister.join()
        assert not failures and refused <= {"insufficient_memory", "in_use"}
        assert all(not entry.num_users for entry in registry.entries.values())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        serve(work)
    finally:
        done.set()
        sys.setswitchinterval(interval)
