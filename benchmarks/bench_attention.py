"""Dynamic mask attention by length and backend, forward and backward, beside PyTorch's causal attention without a mask.

One row of Doge-160M's heads. On a GPU in bfloat16, on a processor in float32.
"""

import argparse
import math

import torch
from common import add_device, finish, measure_on_gpu, report, time_in_turn
from torch.nn import functional as F

from small_doge.ops import dynamic_mask_attention


HEADS, KV_HEADS, HEAD_SIZE = 6, 3, 128


def prepare(backend: str, tokens: int, window: int, device: str, backward: bool):
    """A function that attends once over a row of random tokens."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    query = torch.randn(1, HEADS, tokens, HEAD_SIZE, device=device, dtype=dtype, requires_grad=backward)
    key, value = (
        torch.randn(1, KV_HEADS, tokens, HEAD_SIZE, device=device, dtype=dtype, requires_grad=backward)
        for _ in range(2)
    )
    score = torch.rand(1, KV_HEADS, tokens, device=device).add_(0.5).requires_grad_(backward)

    def run():
        with torch.set_grad_enabled(backward):
            if backend == "causal":
                output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            else:
                output = dynamic_mask_attention(query, key, value, score, keep_window_size=window, backend=backend)
            if backward:
                output.backward(torch.ones_like(output))
        finish()

    return run


def measure(tokens: int, backward: bool, args: argparse.Namespace) -> dict:
    """Milliseconds of each backend, and the ratio to causal attention; NaN where the memory does not do."""
    row: dict = {"tokens": tokens, "pass": "backward" if backward else "forward"}
    for name in ("causal", *args.backends):
        if name == "fused" and tokens > args.window:
            continue
        arguments = (name, tokens, args.window, args.device, backward)
        if args.device == "cuda":
            row[f"{name} MiB"], seconds = measure_on_gpu(prepare, *arguments, rounds=args.rounds)
        else:
            seconds = time_in_turn({"it": prepare(*arguments)}, args.rounds)["it"]
        row[f"{name} ms"] = 1e3 * seconds
        if name != "causal":
            row[f"{name} / causal"] = seconds / (row["causal ms"] / 1e3)
    timed = {name: row[f"{name} ms"] for name in args.backends if not math.isnan(row.get(f"{name} ms", math.nan))}
    row["fastest"] = min(timed, key=lambda name: timed[name], default="")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--backends", nargs="+", default=["auto", "streaming", "flex"])
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    add_device(parser)
    args = parser.parse_args()
    rows = []
    for tokens in args.lengths:
        for backward in (False, True):
            rows.append(measure(tokens, backward, args))
            print(rows[-1], flush=True)
    report("attention", rows)


if __name__ == "__main__":
    main()
