"""Warmup-stable-decay: going on from a stable checkpoint with new data, beside cosine; and how long the decay should be.

Part one trains on the first data with a decay of 10, 30 or 60% of the steps, and with cosine. Part two goes on with new
data: from the stable checkpoint, from its weights alone, and from what cosine ended with; and trains on both data from
scratch with cosine.
"""

import argparse
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.experts import describe, evaluate
from benchmarks.studies.presenting import draw_lines, group_rows, summary_table
from benchmarks.studies.token_rows import draw_batches, read_tokens
from torch import nn

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.utils.errors import UserError
from small_doge.utils.model_folder import load_tokenizer
from small_doge.utils.scheduler import compute_wsd_factor


# `steps` on the first data; held-out losses every `near` steps in the first `near_for` steps on the new data, where a
# spike would be, and every `far` afterwards.
SIZES = {
    "smoke": {
        "model": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "length": 32, "batch": 2, "steps": 20, "near": 2, "near_for": 4, "far": 6,
        "held_out_rows": 4, "lr": 3e-3,
    },
    "cpu": {
        "model": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2},
        "length": 256, "batch": 2, "steps": 800, "near": 10, "near_for": 60, "far": 60,
        "held_out_rows": 16, "lr": 3e-3,
    },
    "gpu": {
        "model": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 2},
        "length": 1024, "batch": 64, "steps": 8000, "near": 10, "near_for": 200, "far": 200,
        "held_out_rows": 256, "lr": 8e-3,
    },
}  # fmt: skip
WARMUP = 0.05  # share of the steps on the first data, and of those on the new one where it is warmed up again
DECAYS = (0.1, 0.3, 0.6)  # of the steps on the first data
FEWEST_STEPS = 20
NEW_SHARE = 0.6  # steps on the new data, as a share of those on the first
NEW_DECAY = 0.2  # of the steps on the new data
DECAY_ARMS = (*(f"decay {share:.0%}" for share in DECAYS), "cosine")
NEW_ARMS = (
    "go on from stable", "go on from stable weights alone", "go on from cosine, warmed up again",
    "from scratch, first then new", "from scratch, both mixed",
)  # fmt: skip


class Trained:
    """A model and its optimizer."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    def copy(self, keep_optimizer: bool = True) -> "Trained":
        """Return another with the same weights, and the optimizer's averages unless they are to begin anew."""
        other = Trained(copy.deepcopy(self.model), self.optimizer.defaults["lr"])
        if keep_optimizer:
            # A copy: a state dict holds the tensors themselves.
            other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return other


class WarmupStableDecay:
    """Trains the arms of the study. What arms share is trained once: the stable phase, and cosine on the first data."""

    def __init__(self, args: argparse.Namespace) -> None:
        steps = SIZES[args.scale]["steps"] if args.steps is None else args.steps
        if steps < FEWEST_STEPS:
            raise UserError(f"--steps {steps}: the study needs {FEWEST_STEPS} at least, for a decay over 10% of them")
        new_steps, near_for = round(NEW_SHARE * steps), SIZES[args.scale]["near_for"]
        counts = {"steps": steps, "new_steps": new_steps, "near_for": min(near_for, new_steps // 2)}
        self.sizes = {**SIZES[args.scale], **counts}
        self.device = args.device
        sizes, folder = self.sizes, args.tokenizer
        first_rows = sizes["batch"] * (sizes["steps"] + sizes["near_for"])  # as many as are used: none comes twice
        new_rows, held_out_rows = sizes["batch"] * sizes["new_steps"], sizes["held_out_rows"]
        self.first, self.held_out_first = read_tokens(args.data, folder, sizes["length"], first_rows, held_out_rows)
        self.new, self.held_out_new = read_tokens(args.new_data, folder, sizes["length"], new_rows, held_out_rows)
        self.vocab_size = len(load_tokenizer(folder))
        self.train_stable = functools.lru_cache(maxsize=1)(self._train_stable)
        self.train_cosine = functools.lru_cache(maxsize=1)(self._train_cosine)

    def run(self, setting: dict) -> dict:
        """Train one arm with one seed."""
        arm, seed = setting["arm"], setting["seed"]
        if arm in DECAY_ARMS:
            return self._run_decay(arm, seed)
        if arm.startswith("go on"):
            return self._go_on(arm, seed)
        return self._run_from_scratch(arm, seed)

    def _build(self, seed: int) -> Trained:
        torch.manual_seed(seed)
        config = DogeConfig(
            **self.sizes["model"],
            vocab_size=self.vocab_size,
            num_key_value_heads=1,
            max_position_embeddings=self.sizes["length"],
            keep_window_size=self.sizes["length"],
            tie_word_embeddings=True,
            use_cache=False,
        )
        return Trained(DogeForCausalLM(config).to(self.device), self.sizes["lr"])

    def _draw(self, rows: np.ndarray, seed: int, first: int = 0) -> Iterator[dict]:
        return islice(draw_batches(rows, self.sizes["batch"], seed), first, None)

    def _train(
        self, run: Trained, batches: Iterator[dict], first: int, last: int, factor: Callable[[int], float], every: int
    ) -> list[dict]:
        """Train from one step to another with a share of the peak rate told by the step; points of held-out losses."""
        if first == last:
            return []
        points = train(
            run.model,
            batches,
            last - first,
            self.sizes["lr"],
            schedule=lambda step: factor(first + step),
            optimizer=run.optimizer,
            evaluate=lambda: self._evaluate(run.model),
            every=every,
            device=self.device,
        )
        return [
            {"step": first + point["step"], **{name: point[name] for name in ("loss", "first data", "new data")}}
            for point in points
        ]

    def _evaluate(self, model: nn.Module) -> dict[str, float]:
        sets = {"first data": self.held_out_first, "new data": self.held_out_new}
        return {
            name: evaluate(model, rows, self.sizes["batch"], self.device)["held_out"] for name, rows in sets.items()
        }

    def _schedule(self, steps: int, decay: float, warmup: float = WARMUP) -> Callable[[int], float]:
        """Warm up, stay, and fall linearly over a share of the steps. It begins above 0, so that no step is lost."""
        warmup_steps, decay_steps = round(warmup * steps), round(decay * steps)
        stable = steps - warmup_steps - decay_steps
        return lambda step: compute_wsd_factor(step + (step < warmup_steps), warmup_steps, stable, decay_steps)

    def _cosine(self, steps: int) -> Callable[[int], float]:
        warmup = round(WARMUP * steps)
        return lambda step: compute_wsd_factor(step + (step < warmup), warmup, 0, steps - warmup, decay_type="cosine")

    def _train_stable(self, seed: int) -> dict[str, Trained]:
        """Train to the end at a stable rate; copies at the steps where the decays begin, and at the end."""
        steps, run, copies, at = self.sizes["steps"], self._build(seed), {}, 0
        starts = {f"decay {share:.0%}": steps - round(share * steps) for share in DECAYS} | {"stable": steps}
        batches = self._draw(self.first, seed)
        for name, start in sorted(starts.items(), key=lambda item: item[1]):
            self._train(run, batches, at, start, self._schedule(steps, 0.0), every=0)
            copies[name], at = run.copy(), start
        return copies

    def _train_cosine(self, seed: int) -> tuple[Trained, list[dict]]:
        steps, run = self.sizes["steps"], self._build(seed)
        points = self._train(run, self._draw(self.first, seed), 0, steps, self._cosine(steps), self.sizes["far"])
        return run, points

    def _run_decay(self, arm: str, seed: int) -> dict:
        if arm == "cosine":
            points = self.train_cosine(seed)[1]
        else:
            steps = self.sizes["steps"]
            share = next(share for share in DECAYS if arm == f"decay {share:.0%}")
            start = steps - round(share * steps)
            run = self.train_stable(seed)[arm].copy()
            factor = self._schedule(steps, share)
            points = self._train(run, self._draw(self.first, seed, start), start, steps, factor, self.sizes["far"])
        return {"points": points, **_last(points)}

    def _go_on(self, arm: str, seed: int) -> dict:
        """Go on with new data, and for a while with the first: there, no rise comes from the data."""
        sizes, warmup = self.sizes, 0.0
        if arm == "go on from cosine, warmed up again":
            run, warmup = self.train_cosine(seed)[0].copy(), WARMUP
        else:
            run = self.train_stable(seed)["stable"].copy(keep_optimizer=arm == "go on from stable")
        before = self._evaluate(run.model)
        factor = self._schedule(sizes["new_steps"], NEW_DECAY, warmup)
        more = self._draw(self.first, seed, sizes["steps"])
        same = self._train(run.copy(), more, 0, sizes["near_for"], factor, sizes["near"])
        batches = self._draw(self.new, seed)
        points = self._train(run, batches, 0, sizes["near_for"], factor, sizes["near"])
        points += self._train(run, batches, sizes["near_for"], sizes["new_steps"], factor, sizes["far"])
        points = [{**point, "step": sizes["steps"] + point["step"]} for point in points]
        return {
            "points": [{"step": sizes["steps"], **before}, *points],
            "same": same,
            "rise on new data": _largest_rise(before, points, "new data"),
            "rise, had it gone on with the first": _largest_rise(before, same, "first data"),
            **_last(points),
        }

    def _run_from_scratch(self, arm: str, seed: int) -> dict:
        sizes = self.sizes
        steps = sizes["steps"] + sizes["new_steps"]
        first = islice(self._draw(self.first, seed), sizes["steps"])
        new = islice(self._draw(self.new, seed), sizes["new_steps"])
        batches: Iterator[dict] = chain(first, new)
        if arm == "from scratch, both mixed":
            order = np.random.default_rng(seed).permutation(steps)
            together = list(batches)
            batches = (together[index] for index in order)
        points = self._train(self._build(seed), batches, 0, steps, self._cosine(steps), sizes["far"])
        return {"points": points, **_last(points)}


def _largest_rise(before: dict[str, float], points: list[dict], data: str) -> float:
    """How far a held-out loss came above where it stood before; 0 if it never did."""
    return max(0.0, *(point[data] - before[data] for point in points))


def _last(points: list[dict]) -> dict[str, float]:
    return {name: points[-1][name] for name in ("first data", "new data")}


def collect_curves(rows: list[dict], arms: Sequence[str], data: str, from_step: int = 0) -> dict[str, dict]:
    """Held-out losses by step of each arm, one value for each seed."""
    curves: dict[str, dict] = {}
    points = [{"arm": row["arm"], **point} for row in rows for point in row["points"] if point["step"] >= from_step]
    for (arm, step), values in group_rows(points, ["arm", "step"], data).items():
        if arm in arms:
            curves.setdefault(arm, {})[step] = values
    return curves


def write_results(study: Study, arms: WarmupStableDecay, rows: list[dict], data: str, new_data: str) -> None:
    """Write both tables and the picture of all curves."""
    sizes, path = arms.sizes, study.picture_path()
    panels = {
        "first data alone": collect_curves(rows, DECAY_ARMS, "first data"),
        "new data": collect_curves(rows, NEW_ARMS, "new data", sizes["steps"]),
        "first data, while on the new": collect_curves(rows, NEW_ARMS, "first data", sizes["steps"]),
    }
    draw_lines(path, panels, "step", "held-out loss")
    losses = {"first data": 3, "new data": 3}
    rises = {"rise on new data": 3, "rise, had it gone on with the first": 3}
    parts = [
        f"Doge ({describe(sizes['model'])}), vocabulary {arms.vocab_size}, {sizes['batch']} rows of {sizes['length']} tokens "
        f"a step; {sizes['steps']} steps on the first data ({data}), then {sizes['new_steps']} on the new one ({new_data}); "
        f"peak learning rate {sizes['lr']} throughout, AdamW, {WARMUP:.0%} warm-up. Losses are in nats per token of "
        f"{sizes['held_out_rows']} held-out rows of each data: mean and standard deviation of the seeds. `go on` ends with "
        f"a linear decay over {NEW_DECAY:.0%} of the new steps.",
        f"## Length of the decay, {sizes['steps']} steps on the first data",
        summary_table([row for row in rows if row["arm"] in DECAY_ARMS], ["arm"], losses),
        "## Going on with new data",
        f"A rise is the largest of the held-out loss above where it stood before the first new step; 0 is no spike. On the "
        f"new data it is looked for every {sizes['near']} steps for {sizes['near_for']} steps, then every {sizes['far']}; "
        f"and for {sizes['near_for']} steps on the first data, had training gone on with them at the same rate.",
        summary_table([row for row in rows if row["arm"] in NEW_ARMS], ["arm"], {**losses, **rises}),
        f"![Held-out losses by step]({path.name})",
        "## Seeds",
        summary_table(rows, ["arm", "seed"], {**losses, **rises}),
    ]
    told = ("arm", "seed", *losses, *rises)
    kept = [{name: row[name] for name in told if name in row} for row in rows]
    study.write("Warmup-stable-decay: going on with new data, and the length of the decay", parts, kept)


def main(argv: Sequence[str] | None = None) -> None:
    """Train every arm, write tables and picture."""
    parser = build_parser("wsd", __doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, help="texts to begin with, as small-doge takes them")
    parser.add_argument("--new-data", nargs="+", required=True, help="texts to go on with")
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument("--steps", type=int, help="steps on the first data; by default those of the scale")
    args = parser.parse_args(argv)
    study = Study("wsd", args, argv)
    arms = WarmupStableDecay(args)
    common = {"scale": args.scale, "steps": arms.sizes["steps"], "device": args.device, "tokenizer": args.tokenizer}
    common |= {"data": args.data, "new_data": args.new_data}
    settings = [{**common, "arm": arm, "seed": seed} for seed in args.seeds for arm in (*DECAY_ARMS, *NEW_ARMS)]
    write_results(study, arms, study.run_all(settings, arms.run), ", ".join(args.data), ", ".join(args.new_data))


if __name__ == "__main__":
    main()
