"""Many streaming clients of `small-doge serve` for a while: answers, memory, throughput, time to the first token.

Each server runs in a process of its own, and is asked by one client and by many. Every answer of ours is compared with the
engine's alone with the same seed. `transformers serve` takes its turn between ours with the same checkpoint (--checkpoint),
where it can be started; it is left out, with the reason, where it can't. So does the server of llama-cpp-python, with a plain
Llama of random weights, of the same shape, bits and vocabulary (--llama-python names a Python that has
`llama-cpp-python[server]`; this one needs gguf).
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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import torch
from bench_peers import LLAMA_TYPES, write_llama
from common import report
from tokenizers import Tokenizer

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
TEXT = re.compile(rb'"(text|content)": ?"[^"]')
MEDIANS = ("tokens_s", "first_token_p50_ms", "first_token_p99_ms")


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
            if not self.first and TEXT.search(self.raw):
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
                    if choice.get("finish_reason") == "length":  # for servers that send no usage
                        count = self.body["max_tokens"]
                count = (event.get("usage") or {}).get("completion_tokens", count)
        return ids, count


async def load(server, clients, seconds, tokens, first=0):
    """Ask with some clients at a time for some seconds; return what was asked, the seconds, and the memory over time.

    Requests are numbered from `first`: a number decides prompt and seed, so that no two turns ask for the same.
    """
    asked, memory, end = [], [], time.perf_counter() + seconds

    async def ask():
        while time.perf_counter() < end:
            one = Asked(first + len(asked), tokens, server.model)
            asked.append(one)
            await one.run(server.port, server.path, server.fields)

    async def look():
        while time.perf_counter() < end:
            memory.append(server.process.memory_info().rss / 2**20)
            await asyncio.sleep(max(0.5, seconds / 60))

    start = time.perf_counter()
    await asyncio.gather(look(), *(ask() for _ in range(clients)))
    return asked, time.perf_counter() - start, memory


class Server:
    """A server in a process of its own: how it is started, and what it is asked."""

    def __init__(self, name, model, command, ready, port, path, fields):
        self.name, self.model, self.command, self.ready = name, model, [str(part) for part in command], ready
        self.port, self.path, self.fields = port, path, fields

    @contextmanager
    def running(self, tokens):
        """Run it, warm."""
        with tempfile.TemporaryFile("w+") as log:  # not a pipe, which nobody would empty
            self.process = psutil.Popen(self.command, stdout=log, stderr=log, text=True)
            try:
                end = time.monotonic() + START_SECONDS
                while not re.search(self.ready, read_all(log)):
                    if self.process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"{self.name} did not start: {read_all(log)[-400:]}")
                    time.sleep(0.2)
                if found := re.search(r"http://127.0.0.1:(\d+)", read_all(log)):
                    self.port = int(found[1])
                asyncio.run(load(self, 1, 2, tokens))
                yield self
            finally:
                self.process.terminate()
                self.process.wait(60)


def read_all(file):
    file.seek(0)
    return file.read()


def make_chat(one):
    return {"messages": [{"role": "user", "content": one.prompt}]}


def make_ours(folder, model, slots, is_chat=False):
    command = [sys.executable, "-c", SAY, "serve", f"{model}={folder}", "--port", "0", "--max-queue", "256"]
    command += ["--chats", f"{tempfile.mkdtemp()}/chats.db", "--num-slots", slots]
    if is_chat:
        path, fields = "/v1/chat/completions", lambda one: {**make_chat(one), "return_token_ids": True}
    else:
        path = "/v1/completions"
        fields = lambda one: {"prompt": one.prompt, "ignore_eos": True, "return_token_ids": True}  # noqa: E731
    return Server(f"small-doge, {slots} slots", model, command, "Ctrl-C stops", 0, path, fields)


def make_transformers(checkpoint, options):
    script = Path(sys.executable).with_name("transformers")
    command = [script, "serve", checkpoint, "--port", "8479", "--device", "cpu", *options]
    ready = "Uvicorn running|startup complete"
    return Server("transformers serve", checkpoint, command, ready, 8479, "/v1/chat/completions", make_chat)


def make_llama(folder, model, python):
    """The server of llama-cpp-python. No answer ends by itself, as none of ours does."""
    import gguf

    runtime = json.loads((Path(folder) / "runtime.json").read_text(encoding="utf-8"))
    path = Path(tempfile.mkdtemp()) / "model.gguf"
    kind = gguf.GGMLQuantizationType[LLAMA_TYPES.get(runtime["quantize"], "F32")]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    write_llama(gguf, str(path), DogeConfig.from_pretrained(folder), kind, tokenizer)
    command = [python, "-m", "llama_cpp.server", "--model", path, "--model_alias", model, "--port", "8480"]
    # A request must not end the one before it, which is this server's default.
    command += ["--interrupt_requests", "false", "--verbose", "false", "--n_threads", "2", "--n_threads_batch", "2"]
    bias = {str(number): -100 for number in runtime["end_ids"]}
    fields = lambda one: {"prompt": one.prompt, "logit_bias": bias}  # noqa: E731
    return Server("llama-cpp-python", model, command, "Uvicorn running", 8480, "/v1/completions", fields)


def check(asked, folder, limit, is_chat=False):
    """Compare answers with the engine's alone with the same seed."""
    engine, wrong = OnnxEngine(folder, threads=1), 0
    checked = asked if len(asked) <= limit else random.Random(0).sample(asked, limit)
    for one in checked:
        given = {"max_new_tokens": one.body["max_tokens"], "temperature": 1.0, "seed": one.body["seed"]}
        prompt = engine.render(make_chat(one)["messages"]) if is_chat else engine.encode(one.prompt)
        wrong += one.read()[0] != list(engine.stream(prompt, ignore_eos=not is_chat, **given))
    return {"checked": len(checked), "wrong": wrong}


def measure_long(folder, model, args):
    """One client, then many for long, each answer compared."""
    rows = []
    with make_ours(folder, model, args.slots[0]).running(args.tokens) as server:
        for clients, seconds in ((1, args.short), (args.clients, args.seconds)):
            asked, took, memory = asyncio.run(load(server, clients, seconds, args.tokens, first=1000))
            rows.append(describe(server, clients, asked, took, memory) | check(asked, folder, args.check))
    return rows


def measure_in_turn(servers, args):
    """All take their turn in every round; medians over the rounds, and of the ratio to the first one within a round."""
    rows = {}
    with ExitStack() as stack:
        running = []
        for server in servers:
            try:
                running.append(stack.enter_context(server.running(args.tokens)))
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
        for number in range(args.rounds):
            for clients in (1, args.clients):
                for server in running:
                    found = asyncio.run(load(server, clients, args.short, args.tokens, first=10_000 * (number + 1)))
                    rows.setdefault((clients, server.name), []).append(describe(server, clients, *found))
    result = []
    for (clients, name), found in rows.items():
        first = rows[clients, running[0].name]
        row = {"server": name, "model": running[0].model, "clients": clients, "rounds": args.rounds}
        row |= {key: sum(one[key] for one in found) for key in ("requests", "errors")}
        row |= {key: statistics.median(one[key] for one in found) for key in MEDIANS}
        ratios = [own["tokens_s"] / one["tokens_s"] for own, one in zip(first, found, strict=True)]
        result.append(row | {"first / this": statistics.median(ratios)})
    return result


def describe(server, clients, asked, took, memory):
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
        "server": server.name,
        "model": server.model,
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
    parser.add_argument("--seconds", type=float, default=120, help="of the load by many clients; 0 leaves it out")
    parser.add_argument("--short", type=float, default=20, help="seconds of every other measurement")
    parser.add_argument("--tokens", type=int, default=128, help="largest number of tokens of an answer")
    parser.add_argument("--slots", type=int, nargs="+", default=[8], help="the first one serves the long load")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the peers")
    parser.add_argument("--check", type=int, default=400, help="answers that are compared with the engine's alone")
    parser.add_argument("--llama-python", help="Python of an environment with llama-cpp-python[server]")
    parser.add_argument("--peer-options", nargs="*", default=[], help="further options of transformers serve")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = {"demo": args.export}
        for quantize in args.random:
            path = Path(folder) / quantize
            models[f"Doge-20M {quantize}"] = export_random("Doge-20M", quantize, load_tokenizer(args.export), path)
        if args.seconds:
            for name, path in models.items():
                rows += measure_long(path, name, args)
        if args.checkpoint and args.rounds:
            peer = make_transformers(args.checkpoint, args.peer_options)
            rows += measure_in_turn([make_ours(args.export, "demo", args.slots[0], is_chat=True), peer], args)
        for name, path in models.items() if args.rounds else ():
            servers = [make_ours(path, name, slots) for slots in args.slots]
            servers += [make_llama(path, name, args.llama_python)] if args.llama_python else []
            rows += measure_in_turn(servers, args) if len(servers) > 1 else []
    report("serving", rows)


if __name__ == "__main__":
    main()
