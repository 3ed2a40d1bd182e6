"""Time per generated token and size of the cache by depth: the bounded cache beside a growing one."""

import argparse
import time

import torch
from common import add_device, build_pair, finish, report
from transformers import DynamicCache

from small_doge import DogeConfig, DynamicMaskCache


PIECE = 1024


def fill(model, cache, tokens: int) -> None:
    """Run `tokens` through the model in pieces."""
    for start in range(0, tokens, PIECE):
        ids = torch.randint(0, 32768, (1, min(PIECE, tokens - start)), device=model.device)
        with torch.no_grad():
            model.model(ids, past_key_values=cache, use_cache=True)


def cache_mib(cache) -> float:
    if isinstance(cache, DynamicMaskCache):
        return cache.nbytes / 2**20
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--peer-depth", type=int, default=4096, help="deepest for transformers, whose masks grow")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24)
    add_device(parser)
    args = parser.parse_args()
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    pair = build_pair(DogeConfig.from_preset("Doge-20M", num_hidden_layers=args.layers, rope_parameters=rope))
    caches = {"ours": DynamicMaskCache(pair["ours"].config), "peer": DynamicCache()}
    rows, depth = [], 0
    for model in pair.values():
        model.eval().to(args.device, torch.bfloat16 if args.device == "cuda" else torch.float32)
    for target in args.depths:
        row = {"depth": target}
        for name, model in pair.items():
            if name == "peer" and target > args.peer_depth:
                continue
            fill(model, caches[name], target - depth)
            best = float("inf")
            for _ in range(args.steps):
                token = torch.randint(0, 32768, (1, 1), device=args.device)
                finish()
                start = time.perf_counter()
                with torch.no_grad():
                    model(token, past_key_values=caches[name], use_cache=True)
                finish()
                best = min(best, time.perf_counter() - start)
            row |= {f"{name} ms/token": best * 1e3, f"{name} cache MiB": cache_mib(caches[name])}
        depth = target + args.steps
        rows.append(row)
        print(row, flush=True)
    report("generation", rows)


if __name__ == "__main__":
    main()
