"""Long prompts: what they cost is their own affair."""

import threading
import time
from itertools import pairwise

import httpx
import pytest
from tests.webui import run_app


TEXT = ("Ada lives in a small house near the river. " * (4 * 2**20 // 43))[: 4 * 2**20]
LONGEST_GAP = 0.5  # seconds; one call that kept the interpreter took several


@pytest.fixture(scope="module")
def long_server(models_dir):
    with run_app(models=(str(models_dir / "doge"),), threads=1, max_prompt_tokens=100) as (address, _):
        yield address


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", {"prompt": TEXT}, 400),
        ("/v1/completions", {"prompt": "<|begin_of_text|>" + TEXT}, 400),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, 400),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"<|begin_of_text|> {TEXT}"}]}, 400),
        ("/apply-template", {"messages": [{"role": "user", "content": TEXT[: 2**20]}]}, 200),
    ],
)
def test_long_prompt_holds_nobody_up(long_server, path, body, status):
    times, done = [], threading.Event()

    def follow():
        asked = {"prompt": "Ada", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{long_server}/v1/completions", json=asked, timeout=60) as answer:
            for _ in answer.iter_lines():
                times.append(time.monotonic())
                if done.is_set():
                    return

    reader = threading.Thread(target=follow)
    reader.start()
    while len(times) < 10:
        time.sleep(0.01)
    answer = httpx.post(f"{long_server}{path}", json=body, timeout=60)
    end = time.monotonic()
    done.set()
    reader.join(30)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert "--max-prompt-tokens" in answer.json()["error"]["message"]
    seen = [moment for moment in times if moment <= end]
    assert max(after - before for before, after in pairwise(seen)) < LONGEST_GAP
