"""Forward at lengths past the window: time and peak memory by length, and the dense mask of `transformers` beside it."""

import argparse

import torch
from common import add_device, build_peer, measure_on_gpu, measure_once, report, time_in_turn

from small_doge import DogeConfig, DogeForCausalLM


def make_config(layers: int) -> DogeConfig:
    return DogeConfig.from_preset(
        "Doge-60M", num_hidden_layers=layers, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
    )


def prepare(which: str, tokens: int, layers: int, device: str = "cpu"):
    torch.manual_seed(0)
    config = make_config(layers)
    model = (DogeForCausalLM(config) if which == "ours" else build_peer(config)).eval()
    if device == "cuda":
        model.to(device, torch.bfloat16)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.A)
    ids = torch.randint(0, 32768, (1, tokens), device=device)

    def run():
        with torch.no_grad():
            model.model(ids, use_cache=False)

    return run


def compare_on_gpu(args: argparse.Namespace):
    """Both models in bfloat16, one after the other."""
    for n in args.lengths:
        row = {"tokens": n}
        for name in ("ours", "peer"):
            row[f"{name} MiB"], row[f"{name} s"] = measure_on_gpu(
                prepare, name, n, args.layers, "cuda", rounds=args.rounds
            )
        row["memory ratio"] = row["ours MiB"] / row["peer MiB"]
        row["speed ratio"] = row["peer s"] / row["ours s"]
        print(row, flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", nargs="+", type=int, default=[4096, 8192, 16384, 32768])
    parser.add_argument("--peer-length", type=int, default=16384)
    add_device(parser)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.device == "cuda":
        return report("long_forward", list(compare_on_gpu(args)))
    seconds = time_in_turn({n: prepare("ours", n, args.layers) for n in args.lengths}, args.rounds)
    rows, before = [], None
    for n in args.lengths:
        row = {"tokens": n, "ours s": seconds[n], "ours MiB": measure_once(prepare, "ours", n, args.layers)[0]}
        if before:
            row["growth"] = seconds[n] / before
        before = seconds[n]
        if n == args.peer_length:
            row["peer MiB"], row["peer s"] = measure_once(prepare, "peer", n, args.layers)
            row["memory ratio"] = row["ours MiB"] / row["peer MiB"]
            row["speed ratio"] = row["peer s"] / row["ours s"]
        rows.append(row)
        print(row, flush=True)
    report("long_forward", rows)


if __name__ == "__main__":
    main()
