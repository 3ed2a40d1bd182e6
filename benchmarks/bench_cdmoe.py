"""CDMoE by number of experts: time per token, beside a plain router over all experts with the same active parameters."""

import argparse

import torch
from common import add_device, report, time_in_turn
from torch import nn

from small_doge import DogeConfig, ops
from small_doge.models.doge.feed_forward import DogeCDMoE


class PlainMoE(nn.Module):
    """The same dense layer and experts, chosen by a router with one row per expert."""

    def __init__(self, cdmoe: DogeCDMoE, config: DogeConfig) -> None:
        super().__init__()
        self.experts = cdmoe
        self.router = nn.Linear(config.hidden_size, config.num_experts, bias=False)

    def forward(self, x):
        tokens = x.reshape(-1, x.shape[-1])
        scores, chosen = self.router(tokens).topk(self.experts.top_k, dim=-1)
        tables = self.experts.down_embed.weight, self.experts.up_embed.weight
        mixed = ops.mix_experts(tokens, *tables, chosen, scores.softmax(-1), self.experts.act_fn)
        return super(DogeCDMoE, self.experts).forward(x) + mixed.view_as(x), None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", nargs="+", type=int, default=[1024, 4096, 16384, 65536])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--top-k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    add_device(parser)
    args = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(1, args.tokens, args.hidden, device=args.device)
    rows = []
    for count in args.experts:
        config = DogeConfig(
            hidden_size=args.hidden,
            intermediate_size=2 * args.hidden,
            num_attention_heads=4,
            is_moe=True,
            num_experts=count,
            num_experts_per_tok=args.top_k,
        )
        ours = DogeCDMoE(config).to(args.device)
        models = {"ours": ours, "plain": PlainMoE(ours, config).to(args.device)}

        def forward(model):
            with torch.no_grad():
                model(x)

        def both(model):
            model(x)[0].square().sum().backward()
            model.zero_grad()

        row = {"experts": count}
        for label, function in (("forward", forward), ("forward+backward", both)):
            seconds = time_in_turn({n: (lambda m=m, f=function: f(m)) for n, m in models.items()}, args.rounds)
            row |= {
                f"ours {label} us/token": seconds["ours"] / args.tokens * 1e6,
                f"{label} ratio": seconds["plain"] / seconds["ours"],
            }
        row["against fewest"] = row["ours forward us/token"] / (
            rows[0]["ours forward us/token"] if rows else row["ours forward us/token"]
        )
        rows.append(row)
        print(row, flush=True)
    report("cdmoe", rows)


if __name__ == "__main__":
    main()
