"""Replicas of Ray Serve: one dies under load, and the server goes on."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest
from tests.webui import run_app

from small_doge.utils.errors import UserError
from small_doge.webui.errors import ApiError
from small_doge.webui.serving import listen, run_server
from small_doge.webui.settings import ServeSettings


ASKED = {
    "model": "doge",
    "messages": [{"role": "user", "content": "Where does Ada live?"}],
    "max_tokens": 60,
    "ignore_eos": True,
}


def list_replicas(server):
    """List the processes of the replicas that a server started."""
    found = []
    for child in server.children(recursive=True):
        with suppress(psutil.Error):  # it ends right now
            found += [child.pid] if "ServeReplica" in "".join(child.cmdline()) else []
    return sorted(found)


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


class Load:
    """Clients that ask one question after the other; gives (start, end, status, answer) of each request."""

    def __init__(self, address, num_clients):
        self.address, self.results, self.has_ended = address, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.has_ended.set()
        for thread in self.threads:
            thread.join()

    def _ask(self):
        with httpx.Client(timeout=60) as client:
            while not self.has_ended.is_set():
                start = time.monotonic()
                try:
                    response = client.post(f"{self.address}/v1/chat/completions", json=ASKED)
                    answer = response.json()["choices"][0]["message"]["content"] if response.is_success else None
                    self.results.append((start, time.monotonic(), response.status_code, answer))
                except httpx.HTTPError as error:
                    self.results.append((start, time.monotonic(), repr(error), None))


@pytest.fixture(scope="module")
def ray_server(models_dir, tmp_path_factory):
    """A server of two replicas: its process, and its address."""
    pytest.importorskip("ray")
    tmp_path = tmp_path_factory.mktemp("ray")
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    command = [sys.executable, "-m", "small_doge.cli.main", "serve", str(models_dir / "doge"), "--port", str(port)]
    command += ["--engine", "ray", "--replicas", "2", "--chats", str(tmp_path / "chats.db")]
    log = (tmp_path / "log").open("w+")
    with subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) as process:
        try:
            wait_for(lambda: "Ctrl-C" in (tmp_path / "log").read_text() or process.poll() is not None, 300)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"
        finally:
            children = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 0, (tmp_path / "log").read_text()
            wait_for(lambda: not any(child.is_running() for child in children), 60)


@pytest.mark.slow
def test_what_concerns_the_server_reaches_both_replicas(ray_server):
    with httpx.Client(base_url=ray_server[1], timeout=120) as client:
        loaded = client.post("/api/v1/models/doge/load").json()
        assert (loaded["num_replicas"], loaded["num_loaded"]) == (2, 2)
        for _ in range(4):  # whichever replica writes it, and whichever is asked to end it
            with client.stream(
                "POST", "/v1/chat/completions", json={**ASKED, "max_tokens": 16_000, "stream": True}
            ) as response:
                lines = response.iter_lines()
                name = json.loads(next(lines).removeprefix("data: "))["id"]
                assert client.post(f"/v1/chat/cancel/{name}").json()["status"] == "cancelled"
                assert any('"finish_reason":"stop"' in line for line in lines)
        assert len(set(re.findall(r'replica="(.*?)"', client.get("/metrics").text))) == 2
        unloaded = client.post("/api/v1/models/doge/unload").json()
        assert (unloaded["num_replicas"], unloaded["num_loaded"]) == (2, 0)
        assert client.get("/api/ps").json()["models"] == []
        assert client.post("/api/v1/models/dogge/load").status_code == 404


@pytest.mark.slow
def test_killed_replica_takes_its_own_requests_along_and_comes_back(ray_server, models_dir):
    process, address = ray_server
    with run_app(models=(str(models_dir / "doge"),), threads=1) as (alone, _):
        expected = httpx.post(f"{alone}/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]["content"]
    before = list_replicas(process)
    assert len(before) == 2
    with Load(address, 8) as load:
        wait_for(lambda: len(load.results) > 50, 60)
        killed = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(now := list_replicas(process)) == 2 and now != before, 120)
        num_then = len(load.results)
        wait_for(lambda: len(load.results) > num_then + 50, 60)
    failed = [result for result in load.results if result[2] != 200]
    assert all(start < killed for start, *_ in failed), failed
    assert len(failed) <= 8
    assert {answer for *_, answer in load.results if answer is not None} == {expected}


def test_without_ray_it_is_said_how_to_get_it(models_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = ServeSettings(models=(str(models_dir / "doge"),), engine="ray")
    with pytest.raises(UserError, match=r"pip install 'small-doge\[scale\]'"):
        run_server(settings, lambda text: None)


class Handle:
    """Stands for Ray Serve's handle: every replica has an answer, or an exception in its place."""

    def __init__(self, answers):
        self.answers, self.asked = answers, None

    def broadcast(self, *asked):
        self.asked = asked
        return self

    async def results_async(self, timeout_s, return_exceptions):
        assert return_exceptions
        if self.answers is None:
            raise TimeoutError
        return self.answers


@pytest.fixture
def ask(monkeypatch):
    """Asks replicas that have some answers."""
    pytest.importorskip("ray")
    from small_doge.webui import replicas

    def run(answers):
        handle = Handle(answers)
        monkeypatch.setattr(replicas, "_find_replicas", lambda: handle)
        result = asyncio.run(replicas.ask_replicas("cancel", "chatcmpl-1"))
        assert handle.asked == ("perform", "cancel", "chatcmpl-1")
        return result

    return run


def test_replicas_that_die_meanwhile_answer_nothing(ask):
    from ray.exceptions import RayActorError

    refusal = ApiError(409, "in use")
    assert ask([True, RayActorError(), refusal]) == [True, refusal]


@pytest.mark.parametrize("answers", [None, []])
def test_replicas_that_do_not_answer_are_told(ask, answers):
    with pytest.raises(ApiError, match="did not answer in time") as caught:
        ask(answers)
    assert caught.value.status == 503


def test_failure_of_a_replica_is_raised(ask):
    with pytest.raises(KeyError):
        ask([True, KeyError("x")])


def test_ray_that_does_not_start_is_told(models_dir, monkeypatch):
    ray = pytest.importorskip("ray")

    def time_out(**options):
        raise Exception("The current node timed out during startup.\nTraceback of Ray")

    monkeypatch.setattr(ray, "init", time_out)
    monkeypatch.setattr(os, "environ", {**os.environ})
    settings = ServeSettings(models=(str(models_dir / "doge"),), engine="ray", port=0, threads=1)
    with pytest.raises(UserError, match="Ray did not start: The current node timed out") as caught:
        run_server(settings, lambda text: None)
    assert "\n" not in str(caught.value)


def test_replicas_listen_on_one_port(models_dir):
    settings = ServeSettings(models=(str(models_dir / "doge"),), engine="ray")
    with pytest.raises(UserError, match="--frontend-port"):
        run_server(settings, lambda text: None, extra_ports=(7860,))


def test_unknown_engine_is_refused():
    with pytest.raises(UserError, match="one of: local, ray"):
        ServeSettings(engine="rray")
