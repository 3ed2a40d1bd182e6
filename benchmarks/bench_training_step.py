"""A training step (forward and backward), ours beside `transformers`: tokens per second and peak memory as ratios."""

import argparse
import math

import torch
from common import build_pair, build_peer, measure_once, report, time_in_turn

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.utils.hardware import has_fast_bf16


def make_batch(kind: str) -> dict[str, torch.Tensor]:
    """1 x 2048 tokens, or a packed row of 8,192 with 16 documents."""
    tokens = 2048 if kind == "1x2048" else 8192
    ids = torch.randint(0, 32768, (1, tokens), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "use_cache": False}
    if kind == "packed":
        batch["position_ids"] = torch.arange(512).repeat(16)[None]
    return batch


def make_step(model, batch, bf16):
    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()
        return loss.item()

    return step


def prepare(which: str, size: str, kind: str, bf16: bool):
    torch.manual_seed(0)
    config = DogeConfig.from_preset(size)
    model = DogeForCausalLM(config) if which == "ours" else build_peer(config)
    return make_step(model.train(), make_batch(kind), bf16)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["Doge-20M", "Doge-60M"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "float32"], choices=["bf16", "float32"])
    parser.add_argument("--batches", nargs="+", default=["1x2048", "packed"], choices=["1x2048", "packed"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    rows = []
    for size in args.sizes:
        for precision in args.precisions:
            for kind in args.batches:
                bf16 = precision == "bf16"
                emulated = bf16 and not has_fast_bf16("cpu")
                if emulated and kind == "packed":
                    print(f"{size}, bf16, packed: left out where bf16 is emulated: the peer takes too long")
                    continue
                batch = make_batch(kind)
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
                print(rows[-1], flush=True)
    report("training_step", rows)


if __name__ == "__main__":
    main()
