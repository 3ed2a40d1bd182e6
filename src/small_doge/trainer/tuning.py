"""The largest batch that fits, and a good learning rate: by trying."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ..utils.errors import DivergedError, UserError
from ..utils.files import write_json
from ..utils.paths import FINISHED
from ..utils.plots import saved_figure
from .arguments import MUON
from .averaging import RAW
from .callbacks import JUDGED_SHARE, read_log
from .checkpoints import LOG_NAME
from .planning import Probe, find_config, load_stage, run_probe
from .runner import train_stage


# Of the free memory, what a batch may take.
USABLE = 0.85
# A probe that would take longer is not run: what fits is then told from the memory of smaller ones.
LONGEST_PROBE = 30.0
WEIGHTS = "model.safetensors"
# Learning rates of the groups of parameters: what AdamW trains, what Muon trains, and the embedding; each with the range that is
# tried.
RATES = {"learning_rate": (1e-4, 1e-2), "muon_lr": (1e-3, 1e-1), "embedding_lr": (1e-4, 1e-2)}
TRIAL, DIVERGED = "trial.json", "diverged.json"


@dataclass(frozen=True)
class BatchTuning:
    """What was measured of batches, and what fits.

    Args:
        probes: by growing number of rows, of which a pair of answers is one.
        length: tokens of a row, those of both answers of a pair.
        largest: rows that fit.
        measured: whether that many were run, or told from the memory of fewer.
        available: bytes that a batch may take.
    """

    probes: list[Probe]
    length: int
    largest: int
    measured: bool
    available: int

    def tokens_per_second(self, probe: Probe) -> float:
        """Return the tokens per second of a micro-batch, without the optimizer."""
        return probe.rows * self.length / probe.seconds

    @property
    def fastest(self) -> Probe:
        """The fewest rows whose speed is within 3% of the best."""
        best = max(map(self.tokens_per_second, self.probes))
        return next(probe for probe in self.probes if self.tokens_per_second(probe) > 0.97 * best)


def tune_batch_size(
    config: str | Path,
    overrides: dict[str, Any],
    stage: str | None = None,
    max_rows: int = 1024,
    say: Callable[[Probe, float], None] = lambda probe, speed: None,
) -> BatchTuning:
    """Double the rows until memory ends, by probes with random tokens.

    Args:
        config: the recipe.
        overrides: settings that override it.
        stage: guessed from the recipe's place if None.
        max_rows: never more. A row is what `per_device_train_batch_size` counts: a pair of answers is one.
        say: takes each probe and its tokens per second.

    Raises:
        UserError: not even one row fits.
    """
    run = load_stage(config, overrides, stage)
    args, doge = run.args, find_config(run.model)
    length = args.compute_row_length(run.data.max_length)
    sequences = args.sequences_per_row
    available = int(USABLE * _free_memory(args.device))
    before = psutil.Process().memory_info().rss
    probes: list[Probe] = []
    rows = fewest = 1
    while rows <= max_rows:
        if len(probes) > 1 and _predict_memory(probes, rows) > available:
            break
        if probes and probes[-1].seconds * rows / probes[-1].rows > LONGEST_PROBE:
            break
        try:
            probe = run_probe(doge, run, rows * sequences, length, args.completion_length, before)
        except (MemoryError, torch.OutOfMemoryError):
            break
        probes.append(replace(probe, rows=rows))
        say(probes[-1], rows * sequences * length / probe.seconds)
        rows *= 2
    if not probes or probes[0].memory > available:
        raise UserError(
            f"not even {fewest} rows of max_length={run.data.max_length} fit into {available / 2**30:.1f} GiB: lower max_length, "
            "set activation_checkpointing to true, or take a smaller model"
        )
    tried = probes[-1].rows
    fitting = tried
    while len(probes) > 1 and fitting * 2 <= max_rows and _predict_memory(probes, fitting * 2) <= available:
        fitting *= 2
    return BatchTuning(probes, sequences * length, fitting, fitting == tried, available)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _predict_memory(probes: Sequence[Probe], rows: int) -> float:
    """Predict memory on the line through the two largest batches."""
    a, b = probes[-2], probes[-1]
    return b.memory + max(0, b.memory - a.memory) / (b.rows - a.rows) * (rows - b.rows)


def plot_batches(tuning: BatchTuning, path: Path) -> None:
    """Plot tokens per second and memory by rows, as a PNG."""
    with saved_figure(path, 8, 4) as figure:
        left, right = figure.subplots(1, 2)
        rows = [probe.rows for probe in tuning.probes]
        left.plot(rows, [tuning.tokens_per_second(probe) for probe in tuning.probes], "o-")
        left.set_ylabel("tokens per second")
        right.plot(rows, [probe.memory / 2**30 for probe in tuning.probes], "o-", color="tab:orange")
        right.axhline(tuning.available / 2**30, color="tab:red", ls="--", label="may be used")
        right.set_ylabel("memory (GiB)")
        right.legend()
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xlabel(f"rows of {tuning.length} tokens")
            axes.grid(alpha=0.3)


@dataclass(frozen=True)
class Trial:
    """A short run with one learning rate.

    Args:
        rate: learning rate.
        score: held-out loss, or the mean of the last training losses; for GRPO minus the reward. Infinite if it diverged.
        curve: steps and losses (or rewards).
    """

    rate: float
    score: float
    curve: list[tuple[int, float]]


def spread_rates(lowest: float, highest: float, trials: int) -> list[float]:
    """Spread rates at equal ratios, both ends included, with two digits.

    Raises:
        ValueError: fewer than two, or not a rising range of positive rates.
    """
    if trials < 2 or not 0 < lowest < highest:
        raise UserError(
            f"--from {lowest:g} --to {highest:g} --trials {trials}: at least two rates, rising from above 0"
        )
    step = (highest / lowest) ** (1 / (trials - 1))
    return [float(f"{lowest * step**i:.1e}") for i in range(trials)]


def tune_learning_rate(
    config: str | Path,
    overrides: dict[str, Any],
    rates: Sequence[float],
    steps: int,
    output: Path,
    stage: str | None = None,
    say: Callable[[Trial], None] = lambda trial: None,
    setting: str = "learning_rate",
) -> list[Trial]:
    """Train shortly with each rate, on the same rows from the same weights; finished trials are not run again.

    Args:
        config: the recipe.
        overrides: settings that override it.
        rates: to try.
        steps: of each trial, with the whole schedule of the recipe in it.
        output: folder of the trials' logs.
        stage: guessed from the recipe's place if None.
        say: takes each trial when it is done.
        setting: the rate that is tried, one of `RATES`.

    Raises:
        UserError: a rate of Muon's, and the recipe does not train by it; or the folder holds trials with other settings.
    """
    run = load_stage(config, {**overrides, "output_dir": str(output)}, stage)
    if setting != "learning_rate" and run.args.optim != MUON:
        raise UserError(f"--setting {setting} needs optim: muon; the recipe has optim: {run.args.optim}")
    prefix = "" if setting == "learning_rate" else f"{setting}-"
    fixed = {
        "max_steps": steps,
        "cache_dir": str(output / "data"),
        "eval_strategy": "no",
        "save_strategy": "no",
        "keep_stable_checkpoint": False,
        "logging_strategy": "steps",
        "logging_steps": max(1, steps // 25),
        "report_to": "none",
    }
    planned = []
    for rate in rates:
        folder = output / f"{prefix}{rate:.1e}-{steps}-steps"
        settings = {**overrides, **fixed, setting: rate, "output_dir": str(folder)}
        resolved = load_stage(config, settings, run.stage.name).settings
        check_trial(folder, resolved)
        planned.append((rate, folder, settings, resolved))
    trials = []
    for rate, folder, settings, resolved in planned:
        if (folder / DIVERGED).exists():
            trial = Trial(rate, math.inf, _read_curve(folder))
        else:
            write_json(folder / TRIAL, resolved)
            trial = _try_rate(run.stage.name, config, settings, folder, rate)
        trials.append(trial)
        say(trial)
    return trials


def check_trial(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse the result of a trial with other settings.

    Raises:
        UserError: with the settings that differ.
    """
    if not (folder / TRIAL).exists() or not any((folder / name).exists() for name in (FINISHED, DIVERGED)):
        return
    before = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{folder} holds a trial with other settings ({', '.join(changed)}): name another folder with --output, or "
            "delete this one"
        )


def _try_rate(stage: str, config: str | Path, settings: dict, folder: Path, rate: float) -> Trial:
    try:
        train_stage(stage, config, settings)
    except DivergedError as error:
        write_json(folder / DIVERGED, {"why": str(error)})
        return Trial(rate, math.inf, _read_curve(folder))
    (folder / WEIGHTS).unlink(missing_ok=True)
    for name in ("runs", RAW):
        shutil.rmtree(folder / name, ignore_errors=True)
    facts = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    curve = _read_curve(folder)
    if "held-out reward" in facts:
        return Trial(rate, -facts["held-out reward"], curve)
    if "held-out loss" in facts:
        return Trial(rate, facts["held-out loss"], curve)
    last = _read_rows(folder)[-max(1, round(len(curve) * JUDGED_SHARE)) :]
    scores = [-row["reward"] if "reward" in row else row["loss"] for row in last]
    return Trial(rate, sum(scores) / len(scores), curve)


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_log(folder / LOG_NAME) if "loss" in row]


def _read_curve(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row.get("reward", row["loss"])) for row in _read_rows(folder)]


def choose_rate(trials: Sequence[Trial]) -> tuple[Trial, str | None]:
    """Choose the best trial, and say what to do if it stands at an end of the range.

    Raises:
        UserError: every trial diverged.
    """
    best = min(trials, key=lambda trial: trial.score)
    if not math.isfinite(best.score):
        raise UserError("the loss became infinite with every rate: lower --from, or raise warmup_steps")
    if best is trials[0]:
        return best, "it is the lowest that was tried: lower --from"
    if best is trials[-1]:
        return best, "it is the highest that was tried: raise --to"
    return best, None


def plot_rates(trials: Sequence[Trial], path: Path) -> None:
    """Plot the score by rate and the curves of the trials, as a PNG."""
    with saved_figure(path, 9, 4) as figure:
        left, right = figure.subplots(1, 2)
        finite = [trial for trial in trials if math.isfinite(trial.score)]
        left.plot([t.rate for t in finite], [t.score for t in finite], "o-")
        for trial in trials:
            if trial not in finite:
                left.axvline(trial.rate, color="tab:red", ls="--")
            if trial.curve:
                right.plot(*zip(*trial.curve, strict=True), lw=1.2, label=f"{trial.rate:.1e}")
        left.set_xscale("log")
        left.set_xlabel("learning rate (red: diverged)")
        left.set_ylabel("score (lower is better)")
        right.set_xlabel("step")
        right.set_ylabel("training loss or reward")
        right.legend(fontsize="small")
        for axes in (left, right):
            axes.grid(alpha=0.3)
