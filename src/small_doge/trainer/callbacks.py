"""What a run shows and writes while it goes."""

import json
import math
import shutil
import sys
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..utils.errors import DivergedError, UserError
from ..utils.files import replace_non_finite, write_text
from ..utils.logging import get_logger
from .arguments import MUON
from .checkpoints import LOG_NAME, find_last_whole


logger = get_logger(__name__)

# Share of the lines of a log, at its end or at either end, over which a run is judged.
JUDGED_SHARE = 0.2


class ProgressCallback(TrainerCallback):
    """A bar with loss, learning rate, tokens per second and time left; lines where there is no terminal."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.started = 0.0
        self.first_tokens = self.first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, and the bar where there is a terminal."""
        self.started = time.monotonic()
        self.first_tokens, self.first_step = state.num_input_tokens_seen, state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Show what was measured."""
        if not state.is_world_process_zero or not logs:
            return
        speed = self.tokens_per_second(state)
        if "eval_loss" in logs:
            shown = ", ".join(f"{k.removeprefix('eval_')} {v:.4f}" for k, v in logs.items() if k in SHOWN_EVAL)
            self._say(f"step {state.global_step}: held out: {shown}")
        elif "loss" in logs:
            rate = logs.get("learning_rate", 0.0)
            named = [f"{short} {logs[name]:.3f}" for name, short in SHOWN_TRAIN.items() if logs.get(name) is not None]
            if self.bar is not None:
                facts = [f"{speed:,.0f} tok/s", f"loss {logs['loss']:.3f}", *named, f"lr {rate:.1e}"]
                room = shutil.get_terminal_size().columns - BAR_WIDTH - 2 * len(str(state.max_steps))
                self.bar.set_postfix_str(fit_facts(facts, room))
            else:
                more = "".join(f", {fact}" for fact in named)
                done = state.global_step - self.first_step
                left = (time.monotonic() - self.started) / max(1, done) * (state.max_steps - state.global_step)
                self._say(
                    f"step {state.global_step}/{state.max_steps}: loss {logs['loss']:.3f}{more}, lr {rate:.1e}, "
                    f"{speed:,.0f} tok/s, {_clock(left)} left"
                )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def tokens_per_second(self, state: TrainerState) -> float:
        """Return the tokens per second of this process's run, without what came before a resume."""
        seconds = time.monotonic() - self.started
        return (int(state.num_input_tokens_seen) - int(self.first_tokens)) / max(seconds, 1e-9)

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


SHOWN_EVAL = ("eval_loss", "eval_bits_per_byte", "eval_reward", "eval_rewards/accuracies", "eval_rewards/margins")
# Beside the loss, which says little where answers are compared.
SHOWN_TRAIN = {"reward": "reward", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}


# Characters of the progress bar beside its numbers of steps and its facts: "training: 100%|", three of the bar, "| ", "/",
# and " [1:23:45<1:23:45, " with its end.
BAR_WIDTH = 42


def fit_facts(facts: list[str], width: int) -> str:
    """Return as many of the facts, the first ones, as a number of characters has room for; the first one always."""
    while len(facts) > 1 and len(", ".join(facts)) > width:
        facts = facts[:-1]
    return ", ".join(facts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class LogFileCallback(TrainerCallback):
    """`training_log.jsonl`: one line a log entry; lines after the checkpoint that a run resumes from are dropped."""

    def __init__(self, output_dir: str, progress: ProgressCallback) -> None:
        self.path = Path(output_dir) / LOG_NAME
        self.progress = progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the file, or keep of it what the checkpoint knows."""
        if state.is_world_process_zero:
            kept = (
                [row for row in read_log(self.path) if row["step"] <= state.global_step] if state.global_step else []
            )
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a line."""
        if state.is_world_process_zero and logs and ("loss" in logs or "eval_loss" in logs):
            row = {"step": state.global_step, **logs, "tokens": int(state.num_input_tokens_seen)}
            if "loss" in logs:
                row["tok_per_s"] = round(self.progress.tokens_per_second(state), 1)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(replace_non_finite(row), allow_nan=False) + "\n")


def read_log(path: str | Path) -> list[dict]:
    """Read the rows of a log; a torn last line is dropped."""
    rows: list[dict] = []
    if not Path(path).exists():
        return rows
    for line in filter(str.strip, Path(path).read_text(encoding="utf-8").split("\n")):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            logger.warning("%s: dropping a torn line", path)
    return rows


class EnoughRowsCallback(TrainerCallback):
    """Refuses a run whose rows are fewer than one step takes: it would end at once with the weights that it began with."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Raise a `UserError` if no batch can be made."""
        if isinstance(train_dataloader, Sized) and len(train_dataloader) == 0:
            raise UserError(
                "the training rows are fewer than one step takes, and nothing would be trained: lower "
                f"per_device_train_batch_size={args.per_device_train_batch_size} or "
                f"gradient_accumulation_steps={args.gradient_accumulation_steps}, or train on more rows"
            )


class FiniteLossCallback(TrainerCallback):
    """Stops when the loss is no longer a number."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise a `DivergedError` if a loss is not finite."""
        for name in ("loss", "eval_loss"):
            if logs and not math.isfinite(logs.get(name, 0.0)):
                raise make_diverged_error(f"the {name} is {logs[name]} at step {state.global_step}", args)


def make_diverged_error(what: str, args: Any) -> DivergedError:
    """Make an error that says what happened, names the last checkpoint whose weights are finite, and the ways on."""
    last = find_last_whole(args.output_dir)
    rates = "muon_lr, learning_rate" if args.optim == MUON else "learning_rate"
    return DivergedError(
        f"{what}. Lower {rates} or raise warmup_steps"
        + (
            f"; the same command then goes on from {last}, or starts over with overwrite true"
            if last
            else "; there is no checkpoint yet"
        )
    )
