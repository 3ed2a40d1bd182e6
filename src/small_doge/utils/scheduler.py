"""Warmup-stable-decay learning rates (arXiv:2405.18392)."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .errors import UserError


DECAY_TYPES = ("linear", "cosine", "1-sqrt")


def check_decay_type(decay_type: str) -> None:
    """Raise a `UserError` if there is no such shape of the decay."""
    if decay_type not in DECAY_TYPES:
        raise UserError(f"decay_type={decay_type!r} is unknown; choose one of {', '.join(DECAY_TYPES)}")


def compute_wsd_factor(
    step: int,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    min_lr_ratio: float = 0.0,
    decay_type: str = "linear",
) -> float:
    """Compute the learning rate at a step, as a share of the peak: a pure function of the step.

    As in `transformers`, a trainer asks before each step, from 0: with a warm-up the first step has the rate 0, and the rate
    at the end would be that of the step after the last.

    Args:
        step: from 0.
        warmup_steps: steps over which it rises to 1, linearly.
        stable_steps: steps at 1.
        decay_steps: steps over which it falls to `min_lr_ratio`, where it stays.
        min_lr_ratio: last value.
        decay_type: "linear", "cosine" or "1-sqrt".
    """
    if step < warmup_steps:
        return step / warmup_steps
    past = step - warmup_steps - stable_steps
    if past <= 0:
        return 1.0
    progress = min(past / decay_steps, 1.0) if decay_steps else 1.0
    if decay_type == "linear":
        left = 1.0 - progress
    elif decay_type == "cosine":
        left = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        left = 1.0 - math.sqrt(progress)
    return min_lr_ratio + (1.0 - min_lr_ratio) * left


def split_steps(total_steps: int, warmup: float, decay: float, stable: int | None = None) -> tuple[int, int, int]:
    """Split the steps of a run into warm-up, stable phase and decay.

    Args:
        total_steps: of the whole run.
        warmup: steps, or a share of the total when below 1.
        decay: likewise.
        stable: steps; what is left if None.

    Raises:
        ValueError: the phases are longer than the run.
    """
    warmup_steps = int(warmup) if warmup >= 1 else math.ceil(total_steps * warmup)
    decay_steps = int(decay) if decay >= 1 else math.ceil(total_steps * decay)
    if warmup < 1 and decay < 1 and warmup + decay <= 1:  # shares of a very short run, each rounded up
        warmup_steps = min(warmup_steps, total_steps - decay_steps)
    stable_steps = total_steps - warmup_steps - decay_steps if stable is None else stable
    if stable_steps < 0 or warmup_steps + stable_steps + decay_steps > total_steps:
        raise UserError(
            f"warmup_steps={warmup_steps}, stable_steps={stable} and decay_steps={decay_steps} are more than "
            f"max_steps={total_steps}; shorten them or train longer"
        )
    return warmup_steps, stable_steps, decay_steps


class WSDScheduler(LRScheduler):
    """Warm up, stay, decay. Any checkpoint of the stable phase can go on with other data and other lengths.

    Args:
        optimizer: whose rates are set.
        warmup_steps: steps of the linear rise from 0 to `max_lr`.
        stable_steps: steps at `max_lr`.
        decay_steps: steps of the fall to `min_lr`.
        max_lr: peak; the optimizer's own rates if None.
        min_lr: last rate.
        decay_type: "linear", "cosine" or "1-sqrt".

    Raises:
        ValueError: negative lengths, `min_lr` above `max_lr`, an unknown decay type.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        max_lr: float | None = None,
        min_lr: float = 0.0,
        decay_type: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if min(warmup_steps, stable_steps, decay_steps) < 0:
            raise UserError(
                f"warmup_steps={warmup_steps}, stable_steps={stable_steps}, decay_steps={decay_steps}: none may be negative"
            )
        check_decay_type(decay_type)
        if max_lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = max_lr
        # Of a group that was scheduled before, torch takes its first rate for the peak, not what decay has left of it.
        peak = max(group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
        if not 0 <= min_lr <= peak:
            raise UserError(f"min_lr={min_lr} must lie between 0 and max_lr={peak}")
        self.warmup_steps, self.stable_steps, self.decay_steps = warmup_steps, stable_steps, decay_steps
        self.min_lr_ratio = min_lr / peak if peak else 0.0
        self.decay_type = decay_type
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the rates of the groups at the present step."""
        factor = compute_wsd_factor(
            self.last_epoch, self.warmup_steps, self.stable_steps, self.decay_steps, self.min_lr_ratio, self.decay_type
        )
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the step alone: lengths and rates are those of the run that loads it."""
        of_the_run = ("warmup_steps", "stable_steps", "decay_steps", "min_lr_ratio", "decay_type", "base_lrs")
        return {name: value for name, value in super().state_dict().items() if name not in of_the_run}
