"""A cache of 8-bit keys and values beside a float32 one: speed, memory, and how far the logits move. Both take turns."""

import argparse
import statistics
import time

import numpy as np
import torch
from bench_peers import PAUSE, Ours
from common import report

from small_doge import DogeConfig, DogeForCausalLM


CALIBRATION_ROWS, CALIBRATION_TOKENS = 16, 128


def measure_preset(
    name: str, depths: list[int], formats: list[str], threads: int, rounds: int, steps: int
) -> list[dict]:
    """Measure a preset with random weights at each depth; ratios are float32's time over int8's, medians of rounds."""
    torch.manual_seed(0)
    model = DogeForCausalLM(DogeConfig.from_preset(name)).eval()
    random = np.random.default_rng(0)
    calibration = random.integers(0, model.config.vocab_size, (CALIBRATION_ROWS, CALIBRATION_TOKENS)).tolist()
    rows = []
    for quantize in formats:
        ours = {
            kind: Ours(model, quantize, threads, kv_cache_dtype=kind, calibration=calibration)
            for kind in ("float32", "int8")
        }
        for depth in depths:
            ids = random.integers(0, model.config.vocab_size, depth).tolist()
            times: dict[tuple[str, str], list[float]] = {}
            for _ in range(rounds):
                for kind, one in ours.items():
                    time.sleep(PAUSE)
                    for part, run, what in (("prompt", one.prefill, ids), ("decode", one.decode, steps)):
                        start = time.perf_counter()
                        run(what)
                        times.setdefault((part, kind), []).append(time.perf_counter() - start)
            logits = [one.backend.decode(1, np.zeros(1, dtype=np.int64))[0] for one in ours.values()]
            rows.append(
                {
                    "model": name,
                    "weights": quantize,
                    "depth": depth,
                    "decode_ratio": _median_ratio(times, "decode"),
                    "prompt_ratio": _median_ratio(times, "prompt"),
                    "float32_mib": ours["float32"].backend.nbytes / 2**20,
                    "int8_mib": ours["int8"].backend.nbytes / 2**20,
                    "logit_error": float(np.sqrt(np.square(logits[1] - logits[0]).mean()) / logits[0].std()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _median_ratio(times: dict[tuple[str, str], list[float]], part: str) -> float:
    return statistics.median(a / b for a, b in zip(times[part, "float32"], times[part, "int8"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["Doge-20M", "Doge-60M", "Doge-160M"])
    parser.add_argument("--depths", nargs="+", type=int, default=[512, 2048, 8192])
    parser.add_argument("--formats", nargs="+", default=["int8", "int4"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=16, help="tokens timed in a round")
    args = parser.parse_args()
    rows = []
    for name in args.models:
        rows += measure_preset(name, args.depths, args.formats, args.threads, args.rounds, args.steps)
    report("kv-cache", rows)


if __name__ == "__main__":
    main()
