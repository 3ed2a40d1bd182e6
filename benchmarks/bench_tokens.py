"""How many tokens a recipe needs to reach the loss of the guides' recipe: AdamW as there, AdamW tuned, and ours.

    python -m benchmarks.bench_tokens --size 1.6M --data ../shared/data/pretrain --tokenizer runs/tokens/tokenizer-1280

Every recipe is trained at a stable rate. At each budget of `--budgets`, a share of `--tokens`, a copy of it decays to the end
of the budget, so that one run gives the loss that every smaller budget would have ended with. Held-out rows, data and
their order are the same for all; seeds differ in weights and order. What was done is kept, and a command that was stopped
goes on. A recipe may have budgets of its own, such as `muon,budgets=0.2/0.4`, and is trained to the largest of them.

The tokenizer was trained by `small-doge tokenizer train --data ../shared/data/pretrain --vocab-size 1280 --output ...`, and
that of the size 6.8M with `--vocab-size 8192`.
"""

import argparse
import copy
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from benchmarks.studies.common import Study, build_parser
from benchmarks.studies.token_rows import draw_batches, read_tokens
from scipy import stats

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.models.starting_weights import set_starting_weights
from small_doge.optim import Muon, split_parameters
from small_doge.utils.errors import UserError
from small_doge.utils.model_folder import load_tokenizer
from small_doge.utils.scheduler import compute_wsd_factor
from small_doge.utils.suggest import unknown_name_message


@dataclass(frozen=True)
class Size:
    """A model, and its rows."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    length: int


# The last two differ from 1.6M in width alone, to see which rates carry over.
SIZES = {
    "smoke": Size(16, 1, 2, 32),
    "1.6M": Size(192, 4, 4, 256),
    "6.8M": Size(256, 8, 2, 512),
    "width-96": Size(96, 4, 4, 256),
    "width-384": Size(384, 4, 4, 256),
}
# Size, tokens of training, tokens held out.
SCALES = {"smoke": ("smoke", 1024, 128), "cpu": ("1.6M", 4 * 2**20, 2**16), "gpu": ("6.8M", 64 * 2**20, 2**18)}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. `lr` is that of AdamW, and with Muon that of what Muon does not train.

    Args:
        warmup: share of the whole number of steps.
        decay: share of a budget.
        step_tokens: tokens of a step.
    """

    optimizer: str = "adamw"
    lr: float = 8e-3
    beta2: float = 0.999
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: float = 0.1
    step_tokens: int = 4096
    muon_lr: float = 0.01
    muon_momentum: float = 0.95
    momentum_warmup: float = 0.0
    muon_weight_decay: float = 0.0
    cautious: bool = False
    embedding_lr: float | None = None
    zero_outputs: bool = False
    embedding_std: float | None = None
    query_key_gain: float | None = None


# The recipe of the published guides, AdamW with the best settings of a search at 0.8M tokens, and ours.
RECIPES = {
    "guides": Recipe(),
    "adamw": Recipe(lr=3e-3, beta2=0.95, decay=0.3),
    "muon": Recipe(optimizer="muon", beta2=0.95, decay=0.4, warmup=0.05, muon_lr=0.006),
}


def parse_recipe(text: str) -> tuple[Recipe, list[float]]:
    """Read `NAME` or `NAME,setting=value,...`, such as `guides,lr=3e-3`; returns the recipe and its budgets."""
    name, *changes = text.split(",")
    if name not in RECIPES:
        raise UserError(unknown_name_message("recipe", name, RECIPES))
    values: dict[str, Any] = {}
    budgets: list[float] = []
    for change in changes:
        key, _, value = change.partition("=")
        if key == "budgets":
            budgets = sorted(map(float, value.split("/")))
            continue
        if key not in asdict(Recipe()):
            raise UserError(unknown_name_message("setting of a recipe", key, [*asdict(Recipe()), "budgets"]))
        values[key] = value == "true" if value in ("true", "false") else value if key == "optimizer" else float(value)
        if key == "step_tokens":
            values[key] = int(values[key])
    return replace(RECIPES[name], **values), budgets


def build_optimizer(model: DogeForCausalLM, recipe: Recipe, steps: int) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe; each group keeps its peak rate."""
    betas = (0.9, recipe.beta2)
    others = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "betas": betas}
    if recipe.optimizer == "muon":
        muon = {
            "lr": recipe.muon_lr,
            "weight_decay": recipe.muon_weight_decay,
            "momentum": recipe.muon_momentum,
            "momentum_warmup_steps": round(recipe.momentum_warmup * steps),
            "cautious_weight_decay": recipe.cautious,
        }
        embeddings = {**others, "lr": recipe.embedding_lr or recipe.lr}
        optimizer: torch.optim.Optimizer = Muon(split_parameters(model, muon, embeddings, others))
    else:
        decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
        groups = [{"params": decayed}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, **others, fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


class Comparison:
    """The data of a size, and the runs on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.size, self.device = SIZES[args.size], args.device
        self.tokens, self.held_out_tokens, self.length = args.tokens, args.held_out_tokens, self.size.length
        self.vocab_size = len(load_tokenizer(args.tokenizer))
        train_rows = (args.unique_tokens or args.tokens) // self.length
        held_out = args.held_out_tokens // self.length
        self.rows, self.held_out = read_tokens(args.data, args.tokenizer, self.length, train_rows, held_out)

    def build(self, recipe: Recipe) -> DogeForCausalLM:
        """Build a new model with the starting weights of a recipe."""
        size = self.size
        config = DogeConfig(
            hidden_size=size.hidden_size,
            intermediate_size=2 * size.hidden_size,
            num_hidden_layers=size.num_hidden_layers,
            num_attention_heads=size.num_attention_heads,
            num_key_value_heads=size.num_attention_heads // 2,
            vocab_size=self.vocab_size,
            max_position_embeddings=size.length,
            keep_window_size=size.length // 2,
            tie_word_embeddings=True,
            use_cache=False,
        )
        model = DogeForCausalLM(config)
        set_starting_weights(model, recipe.zero_outputs, recipe.embedding_std, recipe.query_key_gain)
        return model.to(self.device).train()

    def run(self, setting: dict) -> dict:
        """Train one recipe with one seed: the held-out loss at the end of each budget."""
        recipe = Recipe(**setting["recipe"])
        torch.manual_seed(setting["seed"])
        model = self.build(recipe)
        rows = recipe.step_tokens // self.length
        if not rows:
            raise UserError(f"step_tokens={recipe.step_tokens}: a step has at least one row of {self.length} tokens")
        steps = self.tokens // recipe.step_tokens
        optimizer = build_optimizer(model, recipe, steps)
        batches = list(itertools.islice(draw_batches(self.rows, rows, setting["seed"]), steps))
        warmup = max(1, round(recipe.warmup * steps))
        at, ends, seconds = 0, {}, []
        for budget in setting["budgets"]:
            end = round(budget * steps)
            start = end - round(recipe.decay * end)
            if start < warmup:
                raise UserError(
                    f"a budget of {budget:g} is too small: its decay would begin at step {start}, in the {warmup} steps of warm-up"
                )
            seconds += self._train(model, optimizer, batches, at, start, lambda step: min(1.0, (step + 1) / warmup))
            at = start
            branch = copy.deepcopy(model)
            branch_optimizer = build_optimizer(branch, recipe, steps)
            # A copy: a state dict holds the tensors themselves, and the stable run goes on with them.
            branch_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

            def decay(step: int, start: int = start, end: int = end) -> float:
                return compute_wsd_factor(step + 1, warmup, start - warmup, end - start + 1)

            self._train(branch, branch_optimizer, batches, start, end, decay)
            ends[f"{budget:g}"] = self.evaluate(branch)
        return {
            "ends": ends,
            "parameters": model.num_parameters(),
            "step_seconds": statistics.median(seconds),
        }

    def _train(
        self, model: Any, optimizer: Any, batches: Sequence[dict], first: int, last: int, factor: Any
    ) -> list[float]:
        seconds = []
        for step in range(first, last):
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor(step)
            ids = torch.as_tensor(batches[step]["input_ids"], device=self.device)
            model(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if ids.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return seconds

    @torch.no_grad()
    def evaluate(self, model: DogeForCausalLM) -> float:
        """Measure the loss per token of the held-out rows."""
        model.eval()
        held_out = torch.as_tensor(self.held_out, device=self.device)
        losses = [model(input_ids=ids, labels=ids).loss.item() for ids in held_out.split(16)]
        model.train()
        return statistics.fmean(losses)


def tokens_to_reach(budgets: Sequence[float], losses: Sequence[float], loss: float) -> float:
    """Find the budget at which the losses come down to one, on a line between the logarithms of two budgets.

    Returns:
        The smallest budget where that has a lower loss already, so that fewer tokens might do; infinity where none has.
    """
    if losses[0] <= loss:
        return budgets[0]
    for (small, before), (large, after) in itertools.pairwise(zip(budgets, losses, strict=True)):
        if after <= loss < before:
            share = (before - loss) / (before - after)
            return float(np.exp(np.log(small) + share * (np.log(large) - np.log(small))))
    return float("inf")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table."""
    parser = build_parser("tokens", __doc__ or "", scales=tuple(SCALES))
    parser.prog = "python -m benchmarks.bench_tokens"
    parser.add_argument("--size", choices=SIZES, help="of the model, by default that of the scale")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--tokens", type=int, help="of the whole run, by default those of the scale")
    parser.add_argument("--unique-tokens", type=int, help="for several epochs over fewer tokens")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.4, 0.5, 0.6, 0.75, 1.0])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="such as guides muon,muon_lr=0.01")
    args = parser.parse_args(argv)
    size, tokens, args.held_out_tokens = SCALES[args.scale]
    args.size, args.tokens = args.size or size, args.tokens or tokens
    study = Study("tokens", args, argv)
    study.command = study.command.replace("benchmarks.studies.tokens", "benchmarks.bench_tokens")
    comparison = Comparison(args)
    common = {
        "size": args.size,
        "data": args.data,
        "tokenizer": args.tokenizer,
        "tokens": args.tokens,
        "held_out_tokens": args.held_out_tokens,
        "unique_tokens": args.unique_tokens,
    }
    recipes = [parse_recipe(text) for text in args.recipes]
    settings = [
        {**common, "budgets": budgets or sorted(args.budgets), "recipe": asdict(recipe), "seed": seed}
        for seed in args.seeds
        for recipe, budgets in recipes
    ]
    rows = study.run_all(settings, comparison.run)
    by_name = {name: rows[index :: len(recipes)] for index, name in enumerate(args.recipes)}
    curves = {
        name: {budget * args.tokens: _losses(mine, budget) for budget in mine[0]["budgets"]}
        for name, mine in by_name.items()
    }
    parts = make_parts(by_name, comparison)
    if any(len(curve) > 1 for curve in curves.values()):
        parts.append(study.show_picture({"": curves}, "tokens", "held-out loss", log_x=True))
    study.write(f"Tokens to a loss, {args.size}", parts, rows)


def make_parts(by_name: dict[str, list[dict]], comparison: Comparison) -> list[str]:
    """Make the table: losses at each budget, tokens to the end of the first two recipes, and tests of the difference.

    Args:
        by_name: a row for each seed, by the recipe's name.
        comparison: what was compared.
    """
    budgets = sorted({budget for rows in by_name.values() for budget in rows[0]["budgets"]})
    seeds = len(next(iter(by_name.values())))
    goals = dict(itertools.islice(by_name.items(), 2))
    heads = ["", "recipe", *(f"loss at {budget:g}" for budget in budgets)]
    if len(budgets) > 1:
        heads += [f"tokens to the loss of {number}" for number in range(1, len(goals) + 1)]
    if seeds > 1:
        heads += [f"p against {number}" for number in range(1, len(goals) + 1)]
    lines = [_make_line([*heads, "s a step"]), "|---" * (len(heads) + 1) + "|"]
    for number, (name, mine) in enumerate(by_name.items(), 1):
        cells = [_spread(_losses(mine, budget)) if budget in mine[0]["budgets"] else "" for budget in budgets]
        if len(budgets) > 1:
            cells += ["" if name == goal else _show_needs(mine, rows) for goal, rows in goals.items()]
        if seeds > 1:
            pairs = {
                goal: stats.ttest_rel(_losses(mine), _losses(rows)) for goal, rows in goals.items() if goal != name
            }
            cells += [f"{pairs[goal].pvalue:.2g}" if goal in pairs else "" for goal in goals]
        seconds = statistics.fmean(row["step_seconds"] for row in mine)
        lines.append(_make_line([str(number), f"`{name}`", *cells, f"{seconds:.3f}"]))
    row = next(iter(by_name.values()))[0]
    facts = (
        f"{row['parameters']:,} parameters, vocabulary of {comparison.vocab_size:,}, rows of {comparison.length} tokens. Budgets are "
        f"shares of {comparison.tokens:,} tokens; losses are nats per token of {comparison.held_out_tokens:,} held-out ones, mean ± "
        "standard deviation of the seeds."
    )
    if len(budgets) > 1:
        facts += " Tokens to a loss are shares as well, and that loss is the mean at the end of a recipe."
    if seeds > 1:
        facts += " p is that of a paired t-test over seeds, each recipe at its largest budget."
    return [facts, "\n".join(lines)]


def _losses(rows: list[dict], budget: float | None = None) -> list[float]:
    """List the losses of a recipe's seeds at the end of a budget, by default the largest."""
    return [row["ends"][f"{budget or row['budgets'][-1]:g}"] for row in rows]


def _make_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _show_needs(mine: list[dict], goal: list[dict]) -> str:
    """Tell the budget at which a recipe comes to the mean loss at the end of another."""
    budgets, loss = mine[0]["budgets"], statistics.fmean(_losses(goal))
    by_seed = zip(*(_losses(mine, budget) for budget in budgets), strict=True)
    needs = [tokens_to_reach(budgets, losses, loss) for losses in by_seed]
    if float("inf") in needs:
        return "not reached"
    return ("≤ " if budgets[0] in needs else "") + _spread(needs)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
