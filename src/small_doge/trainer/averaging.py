"""An average of a run's last weights, which becomes the finished model."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..utils.errors import UserError
from ..utils.logging import get_logger


logger = get_logger(__name__)

AVERAGES = ("none", "ema", "uniform")
AVERAGE_FILE = "weight_average.safetensors"
RAW = "raw_weights"  # folder beside a finished model with the weights of its last step
COUNT = "n_averaged"


class WeightAverageCallback(TrainerCallback):
    """Averages the weights of each step over the last share of a run, and keeps the average in each checkpoint.

    Args:
        kind: "ema", an exponential average, or "uniform", the plain mean.
        share: of all steps, at the end.
        decay: of an exponential average, a step.
    """

    def __init__(self, kind: str, share: float, decay: float) -> None:
        self.kind, self.share, self.decay = kind, share, decay
        self.first = 0  # step whose weights are the first to be averaged
        self.average: AveragedModel | None = None
        self.resume: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take up the average of the checkpoint that the run goes on from, if it had begun there."""
        self.first = state.max_steps - max(1, round(self.share * state.max_steps)) + 1
        self.average = None
        file = None if self.resume is None else self.resume / AVERAGE_FILE
        if file is not None and file.is_file():
            self._begin(model)
            tensors = load_file(file)
            assert self.average is not None
            self.average.n_averaged.copy_(tensors.pop(COUNT))
            for name, parameter in self._list_parameters():
                parameter.data.copy_(tensors[name])
        elif state.global_step >= self.first:
            logger.warning(
                "%s has no average of the weights, which begins anew at step %d", self.resume, state.global_step + 1
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the weights of a step into the average."""
        if state.global_step < self.first:
            return
        if self.average is None:
            self._begin(model)
        assert self.average is not None
        self.average.update_parameters(model)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the average into the checkpoint, before that is marked as whole."""
        if args.should_save and self.average is not None:
            tensors = {name: parameter.detach().contiguous() for name, parameter in self._list_parameters()}
            tensors[COUNT] = self.average.n_averaged
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / AVERAGE_FILE)

    def put_into(self, model: Any) -> bool:
        """Replace the weights of a model by the average; tells whether there is one."""
        if self.average is None:
            return False
        targets = dict(model.named_parameters())
        with torch.no_grad():
            for name, parameter in self._list_parameters():
                targets[name].copy_(parameter)
        return True

    def _begin(self, model: Any) -> None:
        average = get_ema_multi_avg_fn(self.decay) if self.kind == "ema" else get_swa_multi_avg_fn()
        self.average = AveragedModel(model, multi_avg_fn=average)

    def _list_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        assert self.average is not None
        return [(name.removeprefix("module."), p) for name, p in self.average.module.named_parameters()]


def check_average(args: Any) -> None:
    """Refuse an average that can't be made.

    Raises:
        UserError: with the value and the remedy.
    """
    if args.weight_average not in AVERAGES:
        raise UserError(f"weight_average={args.weight_average!r} is unknown; choose one of {', '.join(AVERAGES)}")
    if args.weight_average == "none":
        return
    if not 0 < args.weight_average_share <= 1:
        raise UserError(f"weight_average_share={args.weight_average_share} must be above 0 and at most 1")
    if not 0 < args.weight_average_decay < 1:
        raise UserError(f"weight_average_decay={args.weight_average_decay} must lie between 0 and 1")
    if args.load_best_model_at_end:
        raise UserError(
            "weight_average and load_best_model_at_end each decide what the finished model is: set one of them"
        )
