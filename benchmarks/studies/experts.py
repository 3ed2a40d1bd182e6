"""Do experts pay? CDMoE beside a dense layer, a plain mixture, PKM and PEER, with equal active parameters.

Every variant is the same Doge with another feed-forward layer, of as many weights per token as the dense one. Layers that
retrieve (CDMoE, PKM, PEER) stand beside a dense layer whose width takes what retrieval leaves of that budget.
Losses are compared after equal tokens, and after the tokens that each variant gets through in the dense one's time.
"""

import argparse
import copy
import statistics
from collections.abc import Sequence
from itertools import islice, pairwise

import numpy as np
import torch
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.expert_layers import PEER, PKM, TopKMoE, WithDense, count_active_parameters
from benchmarks.studies.presenting import group_rows, spread, summary_table
from benchmarks.studies.token_rows import draw_batches, read_tokens
from torch import nn

from small_doge import DogeConfig, DogeForCausalLM, ops
from small_doge.models.doge.feed_forward import DogeCDMoE, DogeMLP
from small_doge.utils.errors import UserError
from small_doge.utils.markdown import write_table
from small_doge.utils.model_folder import load_tokenizer
from small_doge.utils.suggest import unknown_name_message


KINDS = ("dense", "moe", "cdmoe", "cdmoe-balanced", "pkm", "peer")
# `retrieved` counts the neurons of experts that a token meets; PKM, whose values have half a neuron's weights, meets
# twice as many. `query_dim` is of each of the `heads` of PKM and PEER.
SIZES = {
    "smoke": {
        "model": {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
        "heads": 2, "query_dim": 8, "retrieved": 4,
        "length": 32, "batch": 2, "steps": 10, "train_rows": 20, "held_out_rows": 4, "lr": 3e-3,
        "variants": ["dense", "moe:4", "cdmoe:16", "pkm:16", "peer:16"],
    },
    "cpu": {
        "model": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
        "heads": 2, "query_dim": 64, "retrieved": 16,
        "length": 256, "batch": 2, "steps": 500, "train_rows": 1800, "held_out_rows": 96, "lr": 3e-3,
        "variants": [
            "dense", "moe:16", "moe:64", "cdmoe:16", "cdmoe:256", "cdmoe:4096", "cdmoe:65536",
            "cdmoe-balanced:4096", "pkm:4096", "pkm:65536", "peer:4096", "peer:65536",
        ],
    },
    "gpu": {
        "model": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8},
        "heads": 4, "query_dim": 256, "retrieved": 64,
        "length": 1024, "batch": 32, "steps": 10000, "train_rows": 200000, "held_out_rows": 512, "lr": 1e-3,
        "variants": [
            "dense", "moe:16", "moe:256", "cdmoe:16", "cdmoe:256", "cdmoe:4096", "cdmoe:65536",
            "cdmoe-balanced:4096", "cdmoe-balanced:65536", "pkm:256", "pkm:4096", "pkm:65536", "peer:256", "peer:4096", "peer:65536",
        ],
    },
}  # fmt: skip
WARMUP, DECAY = 0.05, 0.2  # shares of the steps
TIMED_STEPS = 30
FEWEST_STEPS = 5
BALANCE_WEIGHT = 0.01  # of the balance loss, as in arXiv:2101.03961


class WithBalance(nn.Module):
    """A model whose loss in training has a balance loss too, of a plain mixture or, if asked for, of CDMoE."""

    def __init__(self, model: DogeForCausalLM, balance_cdmoe: bool = False) -> None:
        super().__init__()
        self.model = model
        self.mixtures = [module for module in model.modules() if isinstance(module, TopKMoE)]
        self.router_logits: dict[DogeCDMoE, torch.Tensor] = {}
        for module in model.modules() if balance_cdmoe else []:
            if isinstance(module, DogeCDMoE):
                module.register_forward_hook(lambda layer, _, outputs: self.router_logits.update({layer: outputs[1]}))

    def forward(self, **batch: torch.Tensor):
        outputs = self.model(**batch)
        if self.training:
            losses = [mixture.balance_loss for mixture in self.mixtures]
            for layer, logits in self.router_logits.items():
                losses.append(ops.compute_load_balancing_loss((logits,), layer.top_k))
            if losses:
                outputs.loss = outputs.loss + BALANCE_WEIGHT * torch.stack(losses).mean()
        return outputs


def parse_variant(variant: str) -> tuple[str, int]:
    """The kind and the number of experts of a name such as `cdmoe:4096`; 0 for `dense`."""
    kind, _, count = variant.partition(":")
    if kind not in KINDS:
        raise UserError(unknown_name_message("variant", kind, KINDS))
    if (kind == "dense") == bool(count) or (count and not count.isdigit()):
        raise UserError(f"--variants {variant}: write dense alone, and others with their experts, such as cdmoe:4096")
    return kind, int(count or 0)


def build_model(variant: str, sizes: dict, vocab_size: int) -> DogeForCausalLM:
    """A Doge with random weights whose feed-forward layers are of a variant."""
    kind, experts = parse_variant(variant)
    model = DogeForCausalLM(
        DogeConfig(
            **sizes["model"],
            vocab_size=vocab_size,
            num_key_value_heads=1,
            max_position_embeddings=sizes["length"],
            keep_window_size=sizes["length"],
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    if kind != "dense":
        for layer in model.model.layers:
            layer.mlp = build_layer(kind, experts, sizes, count_active_parameters(layer.mlp))
            layer.mlp.apply(model._init_weights)
    return model


def build_layer(kind: str, experts: int, sizes: dict, budget: int) -> nn.Module:
    """A layer with as many active parameters as fit into a budget, but for less than one neuron.

    Raises:
        UserError: the router alone takes the budget.
    """
    hidden = sizes["model"]["hidden_size"]
    if kind == "moe":
        top_k = max(2, round(experts**0.5) // 2)
        inner = (budget - experts * hidden) // (3 * hidden * top_k)
        _check_width(inner, kind, experts, budget)
        return TopKMoE(hidden, experts, top_k, inner)
    retrieved = min(sizes["retrieved"], max(1, experts // 4))

    def build(width: int) -> nn.Module:
        fields = {**sizes["model"], "intermediate_size": width}
        if kind.startswith("cdmoe"):
            return DogeCDMoE(DogeConfig(**fields, is_moe=True, num_experts=experts, num_experts_per_tok=retrieved))
        layer = PKM if kind == "pkm" else PEER
        top_k = (2 if kind == "pkm" else 1) * retrieved // sizes["heads"]
        memory = layer(hidden, experts, sizes["heads"], sizes["query_dim"], top_k)
        return WithDense(DogeMLP(DogeConfig(**fields)), memory)

    width = 1 + (budget - count_active_parameters(build(1))) // (3 * hidden)
    _check_width(width, kind, experts, budget)
    return build(width)


def _check_width(width: int, kind: str, experts: int, budget: int) -> None:
    if width < 1:
        raise UserError(
            f"--variants {kind}:{experts}: its router alone has more than the {budget:,} active parameters of the dense "
            "layer; take fewer experts"
        )


def build_optimizer(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW in one kernel: without it the large tables would be read many times each step."""
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)


def evaluate(model: nn.Module, rows: np.ndarray, batch: int, device: str) -> dict[str, float]:
    """The held-out loss, in nats per token."""
    losses = []
    with torch.no_grad():
        for first in range(0, len(rows), batch):
            ids = torch.as_tensor(rows[first : first + batch], device=device)
            losses += [model(input_ids=ids, labels=ids, skip_logits=True).loss.item()] * len(ids)
    return {"held_out": statistics.fmean(losses)}


def measure_use(model: DogeForCausalLM, rows: np.ndarray, batch: int, device: str) -> float | None:
    """The share of experts that tokens of the held-out rows meet, of all layers; None without experts."""
    met: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, inputs: tuple, outputs: object) -> None:
        if isinstance(module, DogeCDMoE):
            chosen, count = ops.route_tokens(outputs[1], module.top_k)[1], module.up_embed.num_embeddings
        else:
            chosen, count = module.chosen, module.num_experts
        met.setdefault(module, torch.zeros(count, dtype=torch.bool, device=device))[chosen] = True

    kinds = (DogeCDMoE, TopKMoE, PKM, PEER)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        for first in range(0, len(rows), batch):
            model(input_ids=torch.as_tensor(rows[first : first + batch], device=device), logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return statistics.fmean(part.float().mean().item() for part in met.values()) if met else None


class Experts:
    """Measures steps and trains, for one set of rows of tokens."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.sizes, self.device = SIZES[args.scale], args.device
        sizes = self.sizes
        self.rows, self.held_out = read_tokens(
            args.data, args.tokenizer, sizes["length"], sizes["train_rows"], sizes["held_out_rows"]
        )
        self.vocab_size = len(load_tokenizer(args.tokenizer))

    def build(self, setting: dict) -> WithBalance:
        model = build_model(setting["variant"], self.sizes, self.vocab_size)
        return WithBalance(model, setting["variant"].startswith("cdmoe-balanced")).to(self.device)

    def measure_step(self, setting: dict) -> dict:
        """The least seconds of a step: other work on the machine can only add to them."""
        model = self.build(setting)
        optimizer = build_optimizer(model, self.sizes["lr"])
        batches = draw_batches(self.rows, self.sizes["batch"], 0)
        points = train(
            model, batches, setting["steps"], self.sizes["lr"], optimizer=optimizer, every=1, device=self.device
        )
        ends = [0.0, *(point["seconds"] for point in points)]
        return {"step_seconds": min(after - before for before, after in pairwise(ends))}

    def train_variant(self, setting: dict) -> dict:
        """Train with a stable rate, with a decay from it to the end at each of the two numbers of steps."""
        model = self.build(setting)
        optimizer = build_optimizer(model, self.sizes["lr"])
        ends = {"equal tokens": setting["steps"], "equal time": setting["equal_time_steps"]}
        batches = list(islice(draw_batches(self.rows, self.sizes["batch"], setting["seed"]), max(ends.values())))
        result: dict = {"points": []}
        at = 0
        for end in sorted(set(ends.values())):
            stable = round((1 - DECAY) * end)
            result["points"] += self._train_part(model, optimizer, batches, at, stable, setting, stable)
            state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            last = self._train_part(model, optimizer, batches, stable, end, setting, stable)[-1]
            result |= {name: last["held_out"] for name, value in ends.items() if value == end}
            if end == ends["equal tokens"]:
                result["used"] = measure_use(model.model, self.held_out, self.sizes["batch"], self.device)
            model.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            at = stable
        layer = model.model.model.layers[0].mlp
        return {
            **result,
            "active": count_active_parameters(layer),
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    def _train_part(self, model, optimizer, batches, first: int, last: int, setting: dict, stable: int) -> list[dict]:
        """Train from one step to another. From `stable` on, the rate falls to 0 at `last`."""
        if first == last:
            return []
        warmup = max(1, round(WARMUP * setting["steps"]))

        def schedule(step: int) -> float:
            return min(1.0, (first + step + 1) / warmup) * min(1.0, (last - first - step) / max(1, last - stable))

        points = train(
            model,
            batches[first:last],
            last - first,
            self.sizes["lr"],
            schedule=schedule,
            optimizer=optimizer,
            evaluate=lambda: evaluate(model, self.held_out, self.sizes["batch"], self.device),
            device=self.device,
            label=f"{setting['variant']}, seed {setting['seed']}",
        )
        return [{"step": first + point["step"], "held_out": point["held_out"]} for point in points]


def describe(sizes: dict[str, int]) -> str:
    """Fields of a configuration as words."""
    return ", ".join(f"{name} {value}" for name, value in sizes.items())


def _show_share(share: float) -> str:
    return f"{share:.0%}" if share > 0.1 else f"{share:.1%}"


def show_table(rows: list[dict]) -> str:
    """Losses and their difference from the dense layer's with the same seed, and what each variant costs."""
    losses = {(row["variant"], row["seed"]): row for row in rows}
    body = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        cells = [variant, f"{own[0]['active']:,}", f"{own[0]['parameters']:,}", f"{own[0]['step_ms']:.0f}"]
        for end in ("equal tokens", "equal time"):
            dense = [losses.get(("dense", row["seed"])) for row in own]
            gaps = [row[end] - other[end] for row, other in zip(own, dense, strict=True) if other]
            cells += [spread([row[end] for row in own]), "" if variant == "dense" else spread(gaps)]
        used = [row["used"] for row in own if row["used"] is not None]
        cells += [str(own[0]["equal_time_steps"]), _show_share(statistics.fmean(used)) if used else ""]
        body.append(cells)
    columns = [
        "layer", "active parameters a layer", "parameters in all", "ms a step", "loss, equal tokens", "minus dense",
        "loss, equal time", "minus dense", "steps in equal time", "experts met",
    ]  # fmt: skip
    return write_table(columns, body)


def draw_panels(rows: list[dict]) -> dict[str, dict]:
    """Held-out loss by number of experts, after equal tokens and equal time; the dense layer is a level line."""
    counts = sorted({parse_variant(row["variant"])[1] for row in rows} - {0})
    panels: dict[str, dict] = {}
    for end in ("equal tokens", "equal time"):
        lines: dict[str, dict] = {}
        for (variant,), values in group_rows(rows, ["variant"], end).items():
            kind, experts = parse_variant(variant)
            for count in [experts] if experts else counts:
                lines.setdefault(kind, {})[count] = values
        panels[end] = lines
    return panels


def write_results(study: Study, experts: Experts, rows: list[dict], budget: float) -> None:
    """Write the table and the picture; `budget` is the seconds of equal time."""
    sizes, steps, data = experts.sizes, rows[0]["steps"], ", ".join(rows[0]["data"])
    about = (
        f"Doge ({describe(sizes['model'])}), vocabulary {experts.vocab_size}, rows of {sizes['length']} tokens, "
        f"{sizes['batch']} a step, {steps} steps ({steps * sizes['batch'] * sizes['length']:,} tokens) at equal tokens, "
        f"learning rate {sizes['lr']}, {len(experts.held_out)} held-out rows; data: {data}. A step is the fastest of "
        f"{TIMED_STEPS}, and equal time is what {steps} steps of the dense layer take ({budget:.0f} s). The learning rate "
        f"is stable, and falls over the last {DECAY:.0%} before each reading. Losses are in nats per held-out token: mean "
        f"and standard deviation of the seeds; differences are taken seed by seed. Experts met: share that the held-out "
        f"tokens choose."
    )
    picture = study.show_picture(draw_panels(rows), "experts", "held-out loss", log_x=True)
    told = (
        "variant",
        "seed",
        "active",
        "parameters",
        "step_ms",
        "equal tokens",
        "equal time",
        "equal_time_steps",
        "used",
    )
    seeds = summary_table(rows, ["variant", "seed"], {"equal tokens": 3, "equal time": 3})
    title = "Do experts pay? CDMoE, a dense layer, a plain mixture, PKM and PEER"
    study.write(
        title,
        [about, show_table(rows), picture, "## Seeds", seeds],
        [{name: row[name] for name in told} for row in rows],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the steps, train every variant, write table and picture."""
    parser = build_parser("experts", __doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, help="texts, as small-doge takes them")
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument(
        "--variants", nargs="+", help="such as moe:16 cdmoe:4096, beside dense; by default those of the scale"
    )
    parser.add_argument("--steps", type=int, help="training steps at equal tokens; by default those of the scale")
    args = parser.parse_args(argv)
    study = Study("experts", args, argv)
    sizes = SIZES[args.scale]
    steps = sizes["steps"] if args.steps is None else args.steps
    if steps < FEWEST_STEPS:
        raise UserError(f"--steps {steps}: the study needs {FEWEST_STEPS} at least, to end with a decay")
    variants = list(dict.fromkeys(["dense", *(args.variants or sizes["variants"])]))
    for variant in variants:
        build_model(variant, sizes, 8)  # what does not fit is told before anything is trained
    experts = Experts(args)
    common = {"scale": args.scale, "device": args.device, "data": args.data, "tokenizer": args.tokenizer}
    timings = [{**common, "variant": variant, "seed": 0, "part": "step", "steps": TIMED_STEPS} for variant in variants]
    seconds = {row["variant"]: row["step_seconds"] for row in study.run_all(timings, experts.measure_step)}
    timing_runs = study.runs
    budget = steps * seconds["dense"]
    equal_steps = {variant: max(FEWEST_STEPS, round(budget / seconds[variant])) for variant in variants}
    settings = [
        {**common, "variant": variant, "seed": seed, "steps": steps, "equal_time_steps": equal_steps[variant]}
        for seed in args.seeds
        for variant in variants
    ]
    rows = [
        {**row, "step_ms": 1e3 * seconds[row["variant"]]} for row in study.run_all(settings, experts.train_variant)
    ]
    study.runs = timing_runs + study.runs
    write_results(study, experts, rows, budget)


if __name__ == "__main__":
    main()
