"""An average of a run's last weights, which becomes the finished model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..utils.errors import UserError
from ..utils.logging import get_logger


logger = get_logger(__name__)

AVERAGES = ("none", "ema", "uniform")
AVERAGE_FILE = "weight_average.safetensors"
RAW = "raw_weights"  # folder beside a finished model with the weights of its last step


class WeightAverageCallback(TrainerCallback):
    """Averages the trained weights of each step over the last share of a run, and keeps the average in each checkpoint.

    Args:
        kind: "ema", an exponential average, or "uniform", the plain mean.
        share: of all steps, at the end.
        decay: of an exponential average, a step. As in Adam, the first weights count no more than their share.
    """

    def __init__(self, kind: str, share: float, decay: float) -> None:
        self.kind, self.share, self.decay = kind, share, decay
        self.first = 0  # step from which weights are averaged
        self.began = 0  # step whose weights are the first in the average; later than that after a resume without one
        self.average: dict[str, torch.Tensor] | None = None
        self.resume: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take up the average of the checkpoint that the run goes on from, if it is of the same steps."""
        self.first = state.max_steps - max(1, round(self.share * state.max_steps)) + 1
        self.began, self.average = max(self.first, state.global_step + 1), None
        if state.global_step < self.first:
            return
        file = None if self.resume is None else self.resume / AVERAGE_FILE
        if file is not None and file.is_file():
            with safe_open(file, "pt") as kept:
                facts = kept.metadata() or {}
                began = int(facts.get("began", 0))
                if began >= self.first and facts == self._describe(began):
                    self.began = began
                    self.average = {
                        name: kept.get_tensor(name).to(weight.device) for name, weight in _list_trained(model).items()
                    }
                    return
        logger.warning(
            "the weight average begins anew at step %d: %s has none of this kind (%s) that begins at step %d or later",
            self.began,
            self.resume,
            self._describe(self.first)["kind"],
            self.first,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Take the weights of a step into the average."""
        if state.global_step < self.first:
            return
        weights = _list_trained(model)
        if self.average is None:
            self.average = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        count = state.global_step - self.began + 1
        share = 1 / count if self.kind == "uniform" else (1 - self.decay) / (1 - self.decay**count)
        for name, tensor in self.average.items():
            tensor.lerp_(weights[name], share)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the average into the checkpoint, before that is marked as whole."""
        if args.should_save and self.average is not None:
            tensors = {name: tensor.contiguous() for name, tensor in self.average.items()}
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(tensors, folder / AVERAGE_FILE, self._describe(self.began))

    def _describe(self, began: int) -> dict[str, str]:
        """Describe an average that begins with the weights of a step."""
        kind = self.kind if self.kind == "uniform" else f"{self.kind} with decay {self.decay}"
        return {"kind": kind, "began": str(began)}

    def put_into(self, model: Any) -> bool:
        """Replace the weights of a model by the average; tells whether there is one."""
        if self.average is None:
            return False
        targets = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in self.average.items():
                targets[name].copy_(tensor)
        return True


def _list_trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


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
