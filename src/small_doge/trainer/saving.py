"""What keeps a run's checkpoints whole, by the events that `transformers.TrainerCallback` offers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..processor.stream import StreamLoader
from ..utils.files import share_weights, write_json, write_manifest, write_text
from ..utils.hardware import describe_device
from ..utils.logging import get_logger
from ..utils.scheduler import WSDScheduler
from .checkpoints import DATA_POSITION, MACHINE, RECIPE, discard_run, list_checkpoints, read_step, rotate
from .identity import write_identity


logger = get_logger(__name__)


class CheckpointCallback(TrainerCallback):
    """Completes each checkpoint, marks it as whole, and only then deletes older ones.

    Args:
        settings: the resolved recipe.
        identity: what the run is.
        stream: batches of a streamed data set, whose position each checkpoint keeps.
    """

    def __init__(
        self, settings: dict[str, Any], identity: dict[str, Any] | None = None, stream: StreamLoader | None = None
    ) -> None:
        self.settings, self.identity, self.stream = settings, identity, stream
        self.limit: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take over the limit: the trainer itself would delete an older checkpoint before the new one is whole."""
        stable = find_stable(args, kwargs.get("lr_scheduler"))
        if args.keep_stable_checkpoint and (
            stable is None or (read_step(stable) < state.global_step and not stable.is_dir())
        ):
            logger.warning(
                "keep_stable_checkpoint=true keeps none: the learning rate decays already at step %d",
                state.global_step,
            )
        if args.save_total_limit is not None:
            self.limit, args.save_total_limit = args.save_total_limit, None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add what belongs to a checkpoint when every process has written its part, the manifest last."""
        PartialState().wait_for_everyone()
        if not args.should_save:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_text(folder / RECIPE, yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True))
        if self.stream is not None:
            steps = state.global_step - self.stream.first_step
            write_json(folder / DATA_POSITION, self.stream.state_after(steps * args.gradient_accumulation_steps))
        if self.identity is not None:
            write_identity(folder, self.identity)
        write_json(folder / MACHINE, {"adapted": args.adapted, "machine": describe_device()})
        share_weights(folder)
        write_manifest(folder)
        special = (find_best(args, state), find_stable(args, kwargs.get("lr_scheduler")))
        rotate(args.output_dir, self.limit, [path for path in special if path is not None])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint where the decay begins, if it is wanted."""
        stable = find_stable(args, kwargs.get("lr_scheduler"))
        if stable is not None and read_step(stable) == state.global_step:
            control.should_save = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the limit back; of a run that keeps one checkpoint, the best one stays, as in `transformers`."""
        args.save_total_limit = self.limit
        best, stable = find_best(args, state), find_stable(args, kwargs.get("lr_scheduler"))
        if args.should_save and self.limit == 1 and best is not None:
            spared = {path.resolve() for path in (best, stable) if path is not None}
            for path in list_checkpoints(args.output_dir):
                if path.resolve() not in spared:
                    shutil.rmtree(path, ignore_errors=True)


def find_best(args: TrainingArguments, state: TrainerState) -> Path | None:
    """Find the checkpoint whose weights are the result, if the evaluation decides on that."""
    best = state.best_model_checkpoint if args.load_best_model_at_end else None
    return None if best is None else Path(best)


def find_stable(args: Any, scheduler: Any) -> Path | None:
    """Find the place of the checkpoint from which the rate decays, if it is to be kept; before step 1 there is none."""
    schedule = unwrap_scheduler(scheduler)
    if not args.keep_stable_checkpoint or not isinstance(schedule, WSDScheduler):
        return None
    last = schedule.warmup_steps + schedule.stable_steps
    return Path(args.output_dir) / f"checkpoint-{last}" if last else None


class DiscardCallback(TrainerCallback):
    """Discards the run that the folder holds, only now that the optimizer and the schedule of the new one are made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Delete it."""
        if args.should_save:
            discard_run(args.output_dir)


class OwnRatesCallback(TrainerCallback):
    """A run that resumes has the optimizer's settings and the rates of its own recipe, not those of the checkpoint."""

    def __init__(self) -> None:
        self.settings: list[dict[str, Any]] = []
        self.peaks: list[Any] = []

    def remember(self, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        """Note the settings before a checkpoint is loaded over them."""
        self.settings = list_group_settings(optimizer)
        self.peaks = list(getattr(unwrap_scheduler(scheduler), "base_lrs", []))

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Restore them, at the step at which the schedule stands."""
        scheduler = unwrap_scheduler(lr_scheduler)
        if not self.settings or not isinstance(scheduler, WSDScheduler | LambdaLR) or scheduler.last_epoch == 0:
            return
        for group, settings in zip(optimizer.param_groups, self.settings, strict=True):
            group.update(settings)
        scheduler.base_lrs = self.peaks
        scheduler.last_epoch -= 1
        scheduler.step()  # to the same step again, which computes its rates


def list_group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """List the settings of each group of parameters, which loading a state replaces."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def unwrap_scheduler(scheduler: Any) -> Any:
    """Return the scheduler of torch inside that of accelerate."""
    return getattr(scheduler, "scheduler", scheduler)


class SaveBeforeEvaluationCallback(TrainerCallback):
    """A due checkpoint is saved before the evaluation starts, unless the evaluation decides what is best.

    Args:
        evaluate: of the trainer; called once the checkpoint is whole, so this comes after `CheckpointCallback`.
    """

    def __init__(self, evaluate: Callable[[], Any]) -> None:
        self.evaluate = evaluate
        self.is_due = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the evaluation off."""
        if control.should_save and control.should_evaluate and args.metric_for_best_model is None:
            control.should_evaluate, self.is_due = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do the same where checkpoints go by epochs."""
        self.on_step_end(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Make up for it."""
        if self.is_due:
            self.is_due = False
            self.evaluate()
