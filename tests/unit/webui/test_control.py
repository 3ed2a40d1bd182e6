"""What concerns the whole server reaches every replica: two applications of one process, joined as Ray Serve joins them."""

import asyncio
import json
import pickle
import re
import shutil
import threading
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi.testclient import TestClient

from small_doge.webui.app import create_app
from small_doge.webui.errors import ApiError
from small_doge.webui.settings import ServeSettings


HELLO = [{"role": "user", "content": "Where does Ada live?"}]
ENDLESS = {"model": "doge", "messages": HELLO, "max_tokens": 16_000, "ignore_eos": True, "stream": True}


@asynccontextmanager
async def run_replicas(models_dir, tmp_path):
    """Gives a client of each of two replicas, and their registries."""
    apps = []

    async def broadcast(action, *arguments):
        action, arguments = pickle.loads(pickle.dumps((action, arguments)))
        answers = [await app.state.server.control.local.perform(action, *arguments) for app in apps]
        return pickle.loads(pickle.dumps(answers))

    for number in range(2):
        settings = ServeSettings(
            models=(str(models_dir / "doge"),),
            models_dir=str(models_dir),
            threads=1,
            chats=str(tmp_path / "chats.db"),
        )
        apps.append(create_app(settings, lambda text: None, broadcast=broadcast))
        apps[-1].state.server.control.local.name = f"replica-{number}"
    first, second = (
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60) for app in apps
    )
    async with first, second:
        try:
            yield first, second, [app.state.server.registry for app in apps]
        finally:
            for app in apps:
                await app.state.server.registry.close(0)


@pytest.fixture
def run(models_dir, tmp_path):
    """Runs a test on two replicas."""

    def run_test(work):
        async def live():
            async with run_replicas(models_dir, tmp_path) as (first, second, registries):
                await work(first, second, registries)

        asyncio.run(live())

    return run_test


async def find_status(client, name):
    (status,) = [model for model in (await client.get("/api/v1/models")).json()["models"] if model["name"] == name]
    assert (await client.get(f"/api/v1/models/{name}/status")).json() == status
    return status


def test_models_are_loaded_and_unloaded_everywhere(run):
    async def work(first, second, registries):
        loaded = (await first.post("/api/v1/models/other/load")).json()
        assert all(registry.find("other").is_loaded for registry in registries)
        assert (loaded["status"], loaded["num_replicas"], loaded["num_loaded"]) == ("loaded", 2, 2)
        assert loaded["memory_bytes"] == sum(registry.find("other").count_bytes() for registry in registries)
        unloaded = (await second.post("/api/v1/models/other/unload")).json()
        assert not any(registry.find("other").is_loaded for registry in registries)
        assert (unloaded["status"], unloaded["loaded"], unloaded["num_loaded"]) == ("unloaded", False, 0)

    run(work)


def test_status_is_that_of_all_replicas(run):
    async def work(first, second, registries):
        body = {"model": "other", "messages": HELLO, "max_tokens": 1}
        assert (await second.post("/v1/chat/completions", json=body)).status_code == 200
        assert not registries[0].find("other").is_loaded
        status = await find_status(first, "other")
        assert (status["status"], status["loaded"], status["num_loaded"]) == ("loaded", True, 1)
        (shown,) = [
            model for model in (await first.get("/api/ps")).json()["models"] if model["name"] == "other:latest"
        ]
        assert shown["size"] == status["memory_bytes"] > 0
        assert (await find_status(first, "base"))["status"] == "unloaded"

    run(work)


def test_a_model_that_another_replica_uses_is_not_said_to_be_unloaded(run):
    async def work(first, second, registries):
        with await registries[1].acquire("other"):
            await registries[0].acquire("other")
            registries[0].find("other").release()
            response = await first.post("/api/v1/models/other/unload")
            assert (response.status_code, response.json()["error"]["code"]) == (409, "in_use")
            assert [registry.find("other").is_loaded for registry in registries] == [False, True]
            idle = await first.post("/api/chat", json={"model": "other", "keep_alive": 0, "stream": False})
            assert idle.json()["done_reason"] == "unload"
            assert registries[1].find("other").is_loaded

    run(work)


def test_an_answer_is_whole_though_its_model_can_t_be_unloaded_after_it(run, monkeypatch):
    async def work(first, second, registries):
        registry = registries[0]
        await registry.acquire("doge")
        registry.find("doge").release()
        go_on, open_model = threading.Event(), registry._open
        monkeypatch.setattr(registry, "_open", lambda entry: go_on.wait(30) and open_model(entry))
        loading = asyncio.create_task(registry.acquire("other"))
        while registry.find("other").loading is None:
            await asyncio.sleep(0)
        ask = {"model": "doge", "prompt": "Ada", "options": {"num_predict": 1}, "keep_alive": 0, "stream": False}
        answer = await asyncio.wait_for(first.post("/api/generate", json=ask), 20)  # does not wait for the other model
        go_on.set()
        assert answer.json()["done"] and registry.find("doge").is_loaded
        (await loading).release()

        async def refuse(entry):
            raise ApiError(409, "a request came meanwhile", code="in_use")

        monkeypatch.setattr(registry, "unload", refuse)
        assert (await first.post("/api/generate", json=ask)).json()["done"]

    run(work)


def test_a_model_whose_folder_was_removed_is_not_found(models_dir, tmp_path):
    shutil.copytree(models_dir / "doge", tmp_path / "models" / "doge")
    shutil.copytree(models_dir / "doge", tmp_path / "models" / "gone")
    settings = ServeSettings(models_dir=str(tmp_path / "models"), threads=1, chats=str(tmp_path / "chats.db"))
    client = TestClient(create_app(settings, lambda text: None), "http://localhost", raise_server_exceptions=False)
    assert client.get("/api/v1/models/gone/status").json()["status"] == "unloaded"
    shutil.rmtree(tmp_path / "models" / "gone")
    assert client.get("/api/v1/models/gone/status").status_code == 404


def test_ollama_loads_and_unloads_everywhere(run):
    async def work(first, second, registries):
        ask = {"model": "other", "stream": False}
        assert (await first.post("/api/generate", json=ask)).json()["done_reason"] == "load"
        assert all(registry.find("other").is_loaded for registry in registries)
        ask |= {"prompt": "Ada", "options": {"num_predict": 1}, "keep_alive": 0}
        assert (await second.post("/api/generate", json=ask)).json()["done"]
        assert not any(registry.find("other").is_loaded for registry in registries)

    run(work)


def test_any_replica_ends_an_answer_that_another_one_writes(models_dir, run):
    async def work(first, second, registries):
        entry = await registries[1].acquire("doge")
        answer = asyncio.create_task(second.post("/v1/chat/completions", json=ENDLESS))
        while not entry.worker.num_unfinished:
            await asyncio.sleep(0.01)
        (name,) = second._transport.app.state.server.generator.running
        cancelled = await first.post(f"/v1/chat/cancel/{name}")
        assert cancelled.json() == {"id": name, "status": "cancelled"}
        last = [line for line in (await answer).text.splitlines() if '"finish_reason":"' in line]
        assert json.loads(last[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
        entry.release()
        assert (await first.post(f"/v1/chat/cancel/{name}")).status_code == 404

    run(work)


def test_counters_tell_the_replicas_apart(run):
    async def work(first, second, registries):
        for client, count in ((first, 2), (second, 3)):
            for _ in range(count):
                body = {"model": "doge", "messages": HELLO, "max_tokens": 5, "ignore_eos": True}
                assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        text = (await first.get("/metrics")).text
        found = dict(re.findall(r'^smalldoge_output_tokens_total\{model="doge",replica="(.*?)"\} (.*)$', text, re.M))
        assert found == {"replica-0": "10.0", "replica-1": "15.0"}
        assert text.count("# TYPE smalldoge_output_tokens_total counter") == 1
        assert 'smalldoge_first_token_seconds_bucket{le="0.005",model="doge",replica="replica-0"}' in text

    run(work)


def test_a_server_without_replicas_has_no_label_for_them(server):
    assert httpx.get(f"{server}/metrics").text.count("replica=") == 0
    status = httpx.post(f"{server}/api/v1/models/doge/load").json()
    assert (status["num_replicas"], status["num_loaded"]) == (1, 1)


def test_unknown_models_are_told_by_every_way(server):
    for path in ("load", "unload", "status"):
        ask = httpx.get if path == "status" else httpx.post
        response = ask(f"{server}/api/v1/models/dogge/{path}")
        assert response.status_code == 404 and "did you mean 'doge'" in response.json()["error"]["message"]
