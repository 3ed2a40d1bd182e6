"""`small-doge serve` as a process of its own: what it says, opens and leaves behind, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest

from small_doge.utils.reports import SWITCHES


SERVE = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("ATTEMPT", event, arguments, file=sys.stderr)

sys.addaudithook(watch)
from small_doge.cli.main import main

main()
"""


@pytest.mark.parametrize(("kind", "words"), [(signal.SIGTERM, []), (signal.SIGINT, ["--log-prompts"])])
def test_server_leaves_nothing_but_its_conversations_and_ends_in_order(tmp_path, models_dir, kind, words):
    home = tmp_path / "home"
    home.mkdir()
    ours = {*SWITCHES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = [sys.executable, "-c", SERVE, "serve", str(models_dir / "doge"), "--port", "0", "--threads", "1", *words]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=file, stderr=file)
        try:
            for _ in range(1200):
                if "Ctrl-C stops" in log.read_text() or process.poll() is not None:
                    break
                time.sleep(0.1)
            address = re.search(r"http://127.0.0.1:\d+", log.read_text())[0]
            ask = {"prompt": "Zanzibar", "max_tokens": 4}
            assert httpx.post(f"{address}/v1/completions", json=ask, timeout=60).status_code == 200
            assert httpx.post(f"{address}/v1/completions", json={**ask, "top_p": 7}, timeout=60).status_code == 400
            assert httpx.post(f"{address}/api/v1/chats", json={"title": "Zanzibar"}, timeout=60).is_success
            long = {"prompt": "Zanzibar", "max_tokens": 16000, "ignore_eos": True, "stream": True}
            with httpx.stream("POST", f"{address}/v1/completions", json=long, timeout=60) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: {")
                start = time.monotonic()
                process.send_signal(kind)
                assert list(lines)[-2:] == ["data: [DONE]", ""]  # finished, or told that the server shuts down
            assert process.wait(60) == 0
            assert time.monotonic() - start < 40
        finally:
            process.kill()
    said = log.read_text()
    assert "Traceback" not in said and "ATTEMPT" not in said
    assert ("Zanzibar" in said) == ("--log-prompts" in words)
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert files and all(re.match(r"\.local/share/small-doge/[^/]*\.db", name) for name in files), files
