"""Many streaming clients of `small-doge serve` for a while: answers, memory, throughput, time to the first token.

Each server runs in a process of its own, and is asked by one client and by many. Every answer of ours is compared with the
engine's alone with the same seed. `transformers serve` takes its turn between ours with the same checkpoint (--checkpoint),
where it can be started; it is left out, with the reason, where it can't.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from common import report

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.inference import OnnxEngine
from small_doge.inference.export import export_onnx
from small_doge.utils.model_folder import load_tokenizer


WORDS = [
    "Ada",
    "lives",
    "in",
    "a",
    "small",
    "house",
    "near",
    "the",
    "river",
    "and",
    "keeps",
    "a",
    "red",
    "boat",
    "with",
    "nine",
    "ropes",
]
SAY = "from small_doge.cli.main import main; main()"
START_SECONDS = 300


class Asked:
    """One request: what was sent, and what came back when."""

    def __init__(self, number, tokens, model):
        words = random.Random(number)
        self.prompt = " ".join(words.choices(WORDS, k=words.randint(4, 24)))
        self.body = {
            "model": model,
            "max_tokens": words.randint(tokens // 2, tokens),
            "temperature": 1.0,
            "seed": number,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self.raw = bytearray()
        self.first = self.start = self.end = 0.0
        self.status = 0

    async def run(self, port, path, fields):
        """Ask, and keep the bytes: they are read after the measurement."""
        content = json.dumps({**self.body, **fields(self)}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        self.start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        while piece := await reader.read(65536):
            self.raw += piece
            if not self.first and (
                b'"text":"' in self.raw or b'"content":"' in self.raw.replace(b'"content":""', b"")
            ):
                self.first = time.perf_counter()
        self.end = time.perf_counter()
        writer.close()
        self.status = int(self.raw[9:12] or 0)

    def read(self):
        """Return token ids, if there are any, and the number of tokens."""
        ids, count = [], 0
        for line in bytes(self.raw).replace(b"\r\n", b"\n").split(b"\n"):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise AssertionError(event["error"])
                for choice in event.get("choices", ()):
                    ids += choice.get("token_ids") or []
                count = (event.get("usage") or {}).get("completion_tokens", count)
        return ids, count


async def load(port, path, fields, model, clients, seconds, tokens, watch):
    """Ask with some clients at a time for some seconds; return what was asked, the seconds, and the memory over time."""
    asked, memory, end = [], [], time.perf_counter() + seconds

    async def ask():
        while time.perf_counter() < end:
            one = Asked(len(asked), tokens, model)
            asked.append(one)
            await one.run(port, path, fields)

    async def look():
        while time.perf_counter() < end:
            memory.append(watch() / 2**20)
            await asyncio.sleep(max(0.5, seconds / 60))

    start = time.perf_counter()
    await asyncio.gather(look(), *(ask() for _ in range(clients)))
    return asked, time.perf_counter() - start, memory


@contextmanager
def serve(command, ready):
    """Start a server; gives its process once a line of what it says, or the port, tells that it is ready."""
    with tempfile.TemporaryFile("w+") as log:  # not a pipe, which nobody would empty
        process = psutil.Popen(command, stdout=log, stderr=log, text=True)
        try:
            end = time.monotonic() + START_SECONDS
            while not re.search(ready, read_all(log)):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[:4]} did not start: {read_all(log)[-400:]}")
                time.sleep(0.2)
            yield process, read_all(log)
        finally:
            process.terminate()
            process.wait(60)


def read_all(file):
    file.seek(0)
    return file.read()


def make_chat(one):
    return {"messages": [{"role": "user", "content": one.prompt}]}


def measure_ours(name, folder, args, clients, seconds, rows, is_chat=False):
    """Ask ours, check answers, and add a row."""
    command = [sys.executable, "-c", SAY, "serve", f"{name}={folder}", "--port", "0", "--max-queue", "256"]
    chats = ["--chats", f"{tempfile.mkdtemp()}/chats.db", "--num-slots", str(args.slots)]
    with serve(command + chats, "Ctrl-C stops") as (process, said):
        port = int(re.search(r"http://127.0.0.1:(\d+)", said)[1])
        fields = lambda one: {"prompt": one.prompt, "ignore_eos": True, "return_token_ids": True}  # noqa: E731
        path = "/v1/completions"
        if is_chat:
            path, fields = "/v1/chat/completions", lambda one: {**make_chat(one), "return_token_ids": True}
        run = (port, path, fields, name)
        asyncio.run(load(*run, 1, 2, args.tokens, lambda: 0))  # warm
        asked, took, memory = asyncio.run(load(*run, clients, seconds, args.tokens, lambda: process.memory_info().rss))
    row = describe("small-doge", name, clients, asked, took, memory)
    engine, wrong = OnnxEngine(folder, threads=1), 0
    checked = asked if len(asked) <= args.check else random.Random(0).sample(asked, args.check)
    for one in checked:
        given = {"max_new_tokens": one.body["max_tokens"], "temperature": 1.0, "seed": one.body["seed"]}
        prompt = engine.render(make_chat(one)["messages"]) if is_chat else engine.encode(one.prompt)
        wrong += one.read()[0] != list(engine.stream(prompt, ignore_eos=not is_chat, **given))
    rows.append({**row, "checked": len(checked), "wrong": wrong})


def measure_transformers(name, checkpoint, args, clients, seconds, rows):
    """Ask `transformers serve`, and add a row."""
    port = 8479
    script = str(Path(sys.executable).with_name("transformers"))
    command = [script, "serve", checkpoint, "--port", str(port), "--device", "cpu", *args.peer_options]
    with serve(command, "Uvicorn running|startup complete") as (process, _):
        run = (port, "/v1/chat/completions", make_chat, checkpoint)
        asyncio.run(load(*run, 1, 2, args.tokens, lambda: 0))
        asked, took, memory = asyncio.run(load(*run, clients, seconds, args.tokens, lambda: process.memory_info().rss))
    rows.append(describe("transformers serve", name, clients, asked, took, memory))


def describe(server, name, clients, asked, took, memory):
    tokens = errors = 0
    for one in asked:
        try:
            count = one.read()[1] if one.status == 200 else 0
        except AssertionError:
            count = 0
        tokens, errors = tokens + count, errors + (count == 0)
    # An answer may end at once, without any text.
    waits = sorted(one.first - one.start for one in asked if one.first) or [float("nan")]
    quarter = max(1, len(memory) // 4)
    return {
        "server": server,
        "model": name,
        "clients": clients,
        "requests": len(asked),
        "errors": errors,
        "tokens_s": tokens / took,
        "first_token_p50_ms": 1000 * statistics.median(waits),
        "first_token_p99_ms": 1000 * waits[min(len(waits) - 1, int(0.99 * len(waits)))],
        "rss_first_quarter_mib": max(memory[:quarter]),
        "rss_last_quarter_mib": max(memory[-quarter:]),
    }


def export_random(preset, quantize, tokenizer, folder):
    """Export a model of random weights."""
    torch.manual_seed(0)
    model = DogeForCausalLM(DogeConfig.from_preset(preset)).eval()
    export_onnx(model, tokenizer, folder, quantize, max_perplexity_increase=10)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", help="exported folder of a model that small-doge demo trained")
    parser.add_argument("--checkpoint", help="the checkpoint that it was made of, for transformers serve")
    parser.add_argument(
        "--random", nargs="*", default=["none", "int8"], help="formats of a Doge-20M of random weights"
    )
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120, help="of the load by many clients")
    parser.add_argument("--short", type=float, default=20, help="seconds of every other measurement")
    parser.add_argument("--tokens", type=int, default=128, help="largest number of tokens of an answer")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the peer")
    parser.add_argument("--check", type=int, default=400, help="answers that are compared with the engine's alone")
    parser.add_argument("--peer-options", nargs="*", default=[], help="further options of transformers serve")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = {"demo": args.export}
        for quantize in args.random:
            path = Path(folder) / quantize
            models[f"Doge-20M {quantize}"] = export_random("Doge-20M", quantize, load_tokenizer(args.export), path)
        for name, path in models.items():
            measure_ours(name, path, args, 1, args.short, rows)
            measure_ours(name, path, args, args.clients, args.seconds, rows)
        for _ in range(args.rounds if args.checkpoint else 0):
            for clients in (1, args.clients):
                try:
                    measure_transformers("demo", args.checkpoint, args, clients, args.short, rows)
                except RuntimeError as error:
                    print(f"transformers serve is left out: {error}", flush=True)
                measure_ours("demo", args.export, args, clients, args.short, rows, is_chat=True)
    report("serving", rows)


if __name__ == "__main__":
    main()
