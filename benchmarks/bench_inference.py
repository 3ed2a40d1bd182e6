"""An exported model by itself: flat memory and time however deep, and several sequences at once."""

import argparse
import statistics
import time

import numpy as np
import torch
from bench_peers import PAUSE, Ours
from common import report

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.inference.benchmark import prefill_prompt


def measure_depths(model, quantize, threads, depths, rounds, steps):
    """Time per token at each depth, taken in turn, and bytes of the state."""
    random = np.random.default_rng(0)
    backends = {depth: Ours(model, quantize, threads).backend for depth in depths}
    for depth, backend in backends.items():
        prefill_prompt(backend, 0, random.integers(0, backend.vocab_size, depth))
    times = {depth: [] for depth in depths}
    for _ in range(rounds):
        for depth, backend in backends.items():
            time.sleep(PAUSE)
            for token in random.integers(0, backend.vocab_size, (steps, 1)):
                start = time.perf_counter()
                backend.decode(1, token)
                times[depth].append(time.perf_counter() - start)
    return [
        {
            "weights": quantize,
            "depth": depth,
            "median_ms": 1e3 * statistics.median(times[depth]),
            "mean_ms": 1e3 * statistics.mean(times[depth]),
            "state_mib": backend.nbytes / 2**20,
        }
        for depth, backend in backends.items()
    ]


def measure_slots(model, quantize, threads, depth, slots, rounds, steps):
    """Tokens per second of one sequence and of each number of `slots`, taken in turn."""
    backend = Ours(model, quantize, threads, num_slots=max(slots)).backend
    prompt = np.random.default_rng(0).integers(0, backend.vocab_size, max(1, depth))
    for slot in range(max(slots)):
        prefill_prompt(backend, slot, prompt)
    speeds = {count: [] for count in (1, *slots)}
    for _ in range(rounds):
        for count, found in speeds.items():
            start = time.perf_counter()
            for _ in range(steps):
                backend.decode(count, np.zeros(count, dtype=np.int64))
            found.append(count * steps / (time.perf_counter() - start))
    rows = []
    for count in slots:
        ratio = statistics.median(many / one for many, one in zip(speeds[count], speeds[1], strict=True))
        facts = {"one_tok_s": max(speeds[1]), "all_tok_s": max(speeds[count]), "ratio": ratio}
        rows.append({"weights": quantize, "depth": depth, "slots": count, **facts})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["Doge-20M", "Doge-60M"])
    parser.add_argument("--formats", nargs="+", default=["int8", "int4"])
    parser.add_argument("--depths", nargs="+", type=int, default=[4096, 16384, 65536])
    parser.add_argument("--slots", nargs="+", type=int, default=[8, 32], help="sequences at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=32, help="tokens timed in a round")
    args = parser.parse_args()
    depths, slots = [], []
    for name in args.models:
        torch.manual_seed(0)
        rope = {"rope_type": "default", "rope_theta": 10_000.0}
        model = DogeForCausalLM(DogeConfig.from_preset(name, keep_window_size=2048, rope_parameters=rope)).eval()
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.A)  # scores that differ, so that keys leave from everywhere
        for quantize in args.formats:
            found = measure_depths(model, quantize, args.threads, args.depths, args.rounds, args.steps)
            depths += [{"model": name, **row} for row in found]
            for depth in (0, 512):
                found = measure_slots(model, quantize, args.threads, depth, args.slots, args.rounds, args.steps)
                slots += [{"model": name, **row} for row in found]
    report("depths", depths)
    report("slots", slots)


if __name__ == "__main__":
    main()
