"""A training step (forward and backward), ours beside `transformers`: tokens per second and peak memory as ratios.

`of peak` is the time that the step's products alone would take at the highest speed measured here, over the step's time:
model FLOPs utilization (MFU) against the measured peak.
"""

import argparse
import itertools
import math

import torch
from common import (
    add_device,
    build_pair,
    build_peer,
    count_step_flops,
    measure_on_gpu,
    measure_once,
    measure_peak,
    report,
    time_in_turn,
)

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.utils.allocator import keep_freed_memory
from small_doge.utils.hardware import has_fast_bf16


PACKED = [512] * 16  # documents of the packed row
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


def make_batch(kind: str, device: str) -> dict[str, torch.Tensor]:
    """Rows x tokens such as 1x2048, or a packed row of 8,192 with 16 documents."""
    rows, tokens = (1, sum(PACKED)) if kind == "packed" else map(int, kind.split("x"))
    ids = torch.randint(0, 32768, (rows, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    batch = {"input_ids": ids, "labels": ids, "use_cache": False}
    if kind == "packed":
        batch["position_ids"] = torch.cat([torch.arange(n, device=device) for n in PACKED])[None]
    return batch


def make_step(model, batch, bf16):
    def step():
        with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()
        return loss.item()

    return step


def compute_shares(row: dict, size: str, kind: str, peak: float) -> dict:
    """Compute the share of the measured peak from the tokens per second of each."""
    rows, tokens = make_batch(kind, "cpu")["input_ids"].shape
    documents = PACKED if kind == "packed" else [tokens] * rows
    flops = count_step_flops(DogeConfig.from_preset(size), documents) / sum(documents)
    return {f"{name} of peak": flops * row[f"{name} tok/s"] / peak for name in ("ours", "peer")}


def prepare(which: str, size: str, kind: str, bf16: bool, device: str = "cpu"):
    torch.manual_seed(0)
    backend = which.partition(":")[2]
    config = DogeConfig.from_preset(size, **({"attn_implementation": backend} if backend else {}))
    model = build_peer(config) if which == "peer" else DogeForCausalLM(config)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.A)  # else all scores are equal, and the mask a sliding window
    return make_step(model.to(device).train(), make_batch(kind, device), bf16)


def compare_on_gpu(args: argparse.Namespace):
    """One after the other, so that each has the whole memory."""
    peaks = {name: measure_peak("cuda", dtype, 8192) for name, dtype in DTYPES.items() if name in args.precisions}
    for size, precision, kind in itertools.product(args.sizes, args.precisions, args.batches):
        tokens = make_batch(kind, "cpu")["input_ids"].numel()
        row = {"model": size, "precision": precision, "batch": kind}
        for name in ("ours", *(f"ours:{backend}" for backend in args.backends), "peer"):
            mib, seconds = measure_on_gpu(prepare, name, size, kind, precision == "bf16", "cuda", rounds=args.rounds)
            row |= {f"{name} tok/s": tokens / seconds, f"{name} MiB": mib}
        row["speed ratio"] = row["ours tok/s"] / row["peer tok/s"]
        row["memory ratio"] = row["ours MiB"] / row["peer MiB"]
        row |= compute_shares(row, size, kind, peaks[precision])
        print(row, flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["Doge-20M", "Doge-60M"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "float32"], choices=["bf16", "float32"])
    parser.add_argument("--batches", nargs="+", default=["1x2048", "packed"], help="ROWSxTOKENS, or packed")
    parser.add_argument(
        "--backends", nargs="*", default=[], help="of our attention, on a GPU: beside auto, such as flex"
    )
    add_device(parser)
    parser.add_argument(
        "--keep-memory", action="store_true", help="of freed tensors, for both, as small-doge train does"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    if args.keep_memory:
        keep_freed_memory()
    if args.device == "cuda":
        return report("training_step", list(compare_on_gpu(args)))
    # Where bf16 is emulated, ours computes in float32.
    kept = {name: dtype if has_fast_bf16("cpu") else torch.float32 for name, dtype in DTYPES.items()}
    peaks = {name: measure_peak("cpu", dtype, 2048) for name, dtype in kept.items() if name in args.precisions}
    rows = []
    for size in args.sizes:
        for precision in args.precisions:
            for kind in args.batches:
                bf16 = precision == "bf16"
                emulated = bf16 and not has_fast_bf16("cpu")
                if emulated and kind == "packed":
                    print(f"{size}, bf16, packed: left out where bf16 is emulated: the peer takes too long")
                    continue
                batch = make_batch(kind, "cpu")
                once = {name: measure_once(prepare, name, size, kind, bf16) for name in ("ours", "peer")}
                memory = {name: mib for name, (mib, _) in once.items()}
                seconds = {name: took for name, (_, took) in once.items()}
                # Where bf16 is emulated a step takes a minute and more, so the one just made must do.
                if not emulated and not math.isnan(memory["peer"]):
                    torch.manual_seed(0)
                    pair = build_pair(DogeConfig.from_preset(size))
                    steps = {name: make_step(model.train(), batch, bf16) for name, model in pair.items()}
                    seconds = time_in_turn(steps, args.rounds, args.warmup)
                    del steps, pair
                tokens = batch["input_ids"].numel()
                rows.append(
                    {
                        "model": size,
                        "precision": precision,
                        "batch": kind,
                        "ours tok/s": tokens / seconds["ours"],
                        "peer tok/s": tokens / seconds["peer"],
                        "speed ratio": seconds["peer"] / seconds["ours"],
                        "ours MiB": memory["ours"],
                        "peer MiB": memory["peer"],
                        "memory ratio": memory["ours"] / memory["peer"],
                    }
                )
                rows[-1] |= compute_shares(rows[-1], size, kind, peaks[precision])
                print(rows[-1], flush=True)
    report("training_step", rows)


if __name__ == "__main__":
    main()
