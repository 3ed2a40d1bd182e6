"""`small-doge serve` and `small-doge-webui` by their command lines: addresses, ports, aliases, and how they end."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from small_doge.utils.errors import UserError
from small_doge.webui.app import GRACE
from small_doge.webui.serving import listen


COMMAND = """
import os, sys

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
with open(sys.argv[1] + ".pid", "w") as file:
    file.write(str(os.getpid()))
sys.argv = sys.argv[2:]
if sys.argv[0] == "small-doge":
    from small_doge.cli.main import main
else:
    from small_doge.cli.serve import main
main()
"""
ASK = {"prompt": "Ada", "max_tokens": 3}
ENDLESS = {"prompt": "Ada", "max_tokens": 16000, "ignore_eos": True, "stream": True}


def has_ipv6():
    try:
        listen("::1", 0).close()
    except UserError:
        return False
    return True


@pytest.fixture
def start(warm_python, tmp_path):
    """Starts a command, and gives what it said, its process id and, once it ended, its exit status."""

    @contextmanager
    def run(*words, wait_for="Ctrl-C stops"):
        log = tmp_path / "log"
        log.write_text("")
        command = SimpleNamespace(status=None, read=log.read_text, pid=None)

        def follow():
            done = warm_python.run("-c", COMMAND, str(log), *words, cwd=tmp_path, timeout=180)
            command.status = done.returncode

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            while not re.search(wait_for, log.read_text()) and thread.is_alive():
                time.sleep(0.05)
            command.pid = int((tmp_path / "log.pid").read_text())
            command.end = thread.join
            yield command
        finally:
            if thread.is_alive():
                os.kill(command.pid, signal.SIGKILL)
                thread.join()

    return run


@pytest.fixture
def served(models_dir, tmp_path):
    return (str(models_dir / "doge"), "--threads", "1", "--chats", str(tmp_path / "chats.db"))


def take_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.slow
def test_the_printed_line_asks_from_a_shell(start, served, monkeypatch):
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    addresses = ["127.0.0.1", "0.0.0.0", *(["::1", "::"] if has_ipv6() else [])]
    for address in addresses:
        key = [] if address in ("127.0.0.1", "::1") else ["--api-key", "a key"]
        with start("small-doge", "serve", *served, "--host", address, "--port", "0", *key) as server:
            line = re.search(r"curl .*", server.read())[0]
            environment = {**os.environ, "SMALLDOGE_API_KEY": "a key", "no_proxy": "*"}
            done = subprocess.run(
                ["sh", "-c", f"{line} -sS"], env=environment, capture_output=True, text=True, timeout=60
            )
            assert '"choices":' in done.stdout, (line, done)
            page = re.search(r"Open (http\S+)", server.read())[1]
            assert httpx.get(page).status_code == 200
            if key:
                bad = subprocess.run(
                    ["sh", "-c", f"{line} -sS"], env={**environment, "SMALLDOGE_API_KEY": "x"}, capture_output=True
                )
                assert b"API key is wrong" in bad.stdout
            os.kill(server.pid, signal.SIGTERM)
            server.end()
            assert server.status == 0 and "Traceback" not in server.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--backend-only", "--backend-host", "127.0.0.1", "--backend-port", "0"],
        ["--frontend-only", "--frontend-host", "127.0.0.1", "--frontend-port", "0"],
        ["--backend-port", "0", "--frontend-port", "0", "--dev"],
        ["--port", "0", "--debug", "--frontend-host", "localhost", "--host", "127.0.0.1"],
    ],
    ids=lambda words: words[0],
)
def test_what_the_guides_type_starts(start, served, words):
    with start(
        "small-doge-webui",
        *served,
        *words,
        wait_for="to chat" if "--frontend-only" in words else "Ctrl-C stops",
    ) as server:
        said = server.read()
        for address in set(re.findall(r"http://127\.0\.0\.1:\d+(?=[ /])", said.split("Models:")[0])):
            page, api = (httpx.get(f"{address}{path}", timeout=30) for path in ("/", "/v1/models"))
            assert ("<html" in page.text) == ("--backend-only" not in words)
            assert (api.status_code == 200) == ("--frontend-only" not in words)
        if words.count("0") == 2:
            assert len(set(re.findall(r"127\.0\.0\.1:(\d+)", said))) == 2  # both ports are named
        os.kill(server.pid, signal.SIGINT)
        server.end()
        assert server.status == 0


@pytest.mark.parametrize("name", [["small-doge", "serve"], ["small-doge-webui"]])
def test_help_tells_the_settings(start, name):
    with start(*name, "--help", wait_for="never") as command:
        command.end()
        assert command.status == 0 and "--memory-budget" in command.read() and "Usage" in command.read()


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(start, served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, option in (
            (["--port", port], "--port"),
            (["--port", "0", "--frontend-port", port], "--frontend-port"),
        ):
            with start("small-doge", "serve", *served, *words, wait_for="never") as command:
                command.end()
                said = command.read()
                assert command.status == 1 and "Loaded" not in said
                assert re.search(
                    rf"Error: can't listen on 127.0.0.1 port {port} \(.*\); .*another port with {option}\n", said
                )


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.7", "an address of this machine with --host"), ("no.such.host.invalid", "can't listen on no.such")],
)
def test_an_address_of_another_machine_is_told(host, words):
    with pytest.raises(UserError, match=words):
        listen(host, 0)


@pytest.mark.slow
def test_answers_have_a_while_to_finish_and_a_second_signal_ends_them_at_once(start, served):
    def follow(address, lines, ends, **asked):
        with httpx.stream("POST", f"{address}/v1/completions", json={**ENDLESS, **asked}, timeout=60) as answer:
            lines.extend(line for line in answer.iter_lines() if line)
        ends.append(time.monotonic())

    for signals in (1, 2):
        with start("small-doge", "serve", *served, "--port", "0", "--num-slots", "1") as server:
            address = re.search(r"http://127.0.0.1:\d+", server.read())[0]
            short, endless, waiting, ends = [], [], [], []
            threads = [
                threading.Thread(target=follow, args=(address, endless, ends)),
                threading.Thread(target=follow, args=(address, waiting, ends), kwargs={"max_tokens": 5}),
            ]
            if signals == 1:
                follow(address, short, [], max_tokens=2)
                assert short[-1] == "data: [DONE]" and "error" not in short[-2]
            threads[0].start()
            while not endless and threads[0].is_alive():
                time.sleep(0.02)
            threads[1].start()
            while httpx.get(f"{address}/api/v1/models").json()["models"][0]["num_requests"] < 2:
                time.sleep(0.02)
            begin = time.monotonic()
            for number in range(signals):
                os.kill(server.pid, signal.SIGINT if number or signals == 2 else signal.SIGTERM)
                time.sleep(0.5)
            for thread in threads:
                thread.join()
            server.end()
            assert server.status == 0 and "Traceback" not in server.read() and "Stopped." in server.read()
            if signals == 2:
                assert max(ends) - begin < GRACE - 1
            else:
                assert GRACE - 1 < max(ends) - begin < GRACE + 20  # of a machine that has other work
                assert "shutting_down" in endless[-2] and "shutting_down" in waiting[-2]
                assert endless[-1] == waiting[-1] == "data: [DONE]"
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{address}/health")
