"""The trainer that all stages share: our schedule, whole checkpoints, an exact evaluation."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer

from ..processor.stream import StreamLoader
from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.scheduler import WSDScheduler, split_steps
from .arguments import MUON
from .averaging import WeightAverageCallback
from .building import build_muon
from .callbacks import make_diverged_error
from .identity import name_optimizer, read_optimizer
from .saving import (
    CheckpointCallback,
    OwnRatesCallback,
    SaveBeforeEvaluationCallback,
    list_group_settings,
    unwrap_scheduler,
)


logger = get_logger(__name__)


class CheckpointingMixin:
    """What every stage's trainer keeps, whichever library it comes from: put before its trainer among the bases.

    Args:
        settings: the resolved recipe, saved with each checkpoint.
        identity: what the run is, saved with each checkpoint.
        eval_bytes: bytes of the text that the evaluation scores, for bits per byte; None if unknown.
        optimizer_state: file with an optimizer's state to start from.
        stream: batches of a streamed data set, whose position each checkpoint keeps.
        kwargs: of the trainer.
    """

    # What the trainer beside it brings.
    args: Any
    model: Any
    state: Any
    control: Any
    optimizer: Any
    lr_scheduler: Any
    accelerator: Any
    is_deepspeed_enabled: bool

    def __init__(
        self,
        *args: Any,
        settings: dict[str, Any],
        identity: dict[str, Any] | None = None,
        eval_bytes: int | None = None,
        optimizer_state: Path | None = None,
        stream: StreamLoader | None = None,
        **kwargs: Any,
    ) -> None:
        self.stream = stream
        self.eval_bytes = eval_bytes
        self.optimizer_state = optimizer_state
        self.own_rates = OwnRatesCallback()
        self.schedule: WSDScheduler | None = None
        super().__init__(*args, **kwargs)
        self.balance_weight = self.model.config.router_aux_loss_coef  # 0 without experts
        if self.balance_weight:
            check_balance(self.args)
        trainer: Any = self
        trainer.add_callback(self.own_rates)
        self.average: WeightAverageCallback | None = None
        if self.args.weight_average != "none":
            share, decay = self.args.weight_average_share, self.args.weight_average_decay
            self.average = WeightAverageCallback(self.args.weight_average, share, decay)
            trainer.add_callback(self.average)  # before the callback that marks a checkpoint as whole
        trainer.add_callback(CheckpointCallback(settings, identity, stream))
        trainer.add_callback(SaveBeforeEvaluationCallback(self.evaluate))

    def get_train_dataloader(self) -> Any:
        """Return a stream as it is: its loader gives each process its part already."""
        return super().get_train_dataloader() if self.stream is None else self.stream

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as in `transformers`; an average of the weights goes on from the checkpoint too."""
        if self.average is not None and isinstance(resume_from_checkpoint, str):
            self.average.resume = Path(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create our warmup-stable-decay schedule, or one of `transformers`."""
        if self.args.lr_scheduler_type != "warmup_stable_decay":
            super().create_scheduler(num_training_steps, optimizer)
        elif self.lr_scheduler is None or unwrap_scheduler(self.lr_scheduler) is self.schedule:
            # Made anew for a second attempt: with a smaller batch it has other steps, and it starts from the peak again.
            optimizer = optimizer or self.optimizer
            for group in optimizer.param_groups:
                group["lr"] = group.get("initial_lr", group["lr"])
            warmup, stable, decay = split_steps(
                num_training_steps, self.args.warmup_steps, self.args.decay_steps, self.args.stable_steps
            )
            peak = max(group["lr"] for group in optimizer.param_groups)
            self.lr_scheduler = self.schedule = WSDScheduler(
                optimizer, warmup, stable, decay, min_lr=self.args.min_lr_ratio * peak, decay_type=self.args.decay_type
            )
        if not self.is_deepspeed_enabled:
            self.own_rates.remember(self.optimizer, self.lr_scheduler)
        return self.lr_scheduler

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create an optimizer, with the state of the checkpoint that the run continues from."""
        if self.args.optim == MUON and self.optimizer is None:
            self.optimizer = build_muon(self.model, self.args)
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.optimizer_state is not None:
            state = torch.load(self.optimizer_state, map_location="cpu", weights_only=True)
            own = list_group_settings(optimizer)
            now, before = name_optimizer(self.args), read_optimizer(self.optimizer_state.parent)
            mismatch = UserError(
                f"{self.optimizer_state} is the state of another optimizer ({before or 'with other groups'}) than "
                f"optim={now}: set optim to the one of that run, or reset_optimizer to true to start a new one"
            )
            if before not in (None, now):
                raise mismatch
            try:
                optimizer.load_state_dict(state)
            except ValueError as error:  # other groups
                raise mismatch from error
            rates = {
                f"{was['lr']:g} to {group['lr']:g}"
                for was, group in zip(state["param_groups"], own, strict=True)
                if abs(was["lr"] - group["lr"]) > 0.01 * group["lr"]
            }
            if rates:
                logger.warning(
                    "the learning rate changes from %s after %s: name a checkpoint of the stable phase, and set learning_rate "
                    "(with optim: muon, muon_lr and embedding_lr too) to that run's, or the loss may jump",
                    " and ".join(sorted(rates)),
                    self.optimizer_state.parent,
                )
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings, initial_lr=settings["lr"])
            self.optimizer_state = None
        return optimizer

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as in `transformers`, but nothing once the numbers are not finite."""
        self.check_finite()
        super().save_model(*args, **kwargs)

    def check_finite(self) -> None:
        """Raise a `DivergedError` if a weight, or what the optimizer keeps of it, is not finite on any process."""
        tensors = [*self.model.parameters()]
        if self.optimizer is not None:
            tensors += [x for kept in self.optimizer.state.values() for x in kept.values() if torch.is_tensor(x)]
        bad = sum(not bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())
        if self.accelerator.reduce(torch.tensor(float(bad), device=self.args.device), "sum").item() > 0:
            raise make_diverged_error(f"the weights are not finite at step {self.state.global_step}", self.args)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Skip the epoch where the last step is done already: a run may die between its last checkpoint and its end."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Tell which weights a checkpoint lacks, leaving out those that are tied to others and never saved twice."""
        tied = set(self.model.all_tied_weights_keys)
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate without moving the generators: starting a loader draws a number, which a resumed run must not notice."""
        with torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)


def check_balance(args: Any) -> None:
    """Refuse settings under which the experts of a model would not be balanced.

    Raises:
        UserError: with the setting and the remedy.
    """
    # Its first pass runs without gradients, and what a layer computes beside its output gets none in the second one.
    if args.activation_checkpointing and (args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
        raise UserError(
            "activation_checkpointing_kwargs: use_reentrant=true would leave the experts unbalanced; set it to false"
        )
    if args.label_smoothing_factor:
        raise UserError(
            f"label_smoothing_factor={args.label_smoothing_factor} would leave the experts unbalanced: the library computes "
            "that loss from the logits alone; leave it out"
        )


class DogeTrainer(CheckpointingMixin, Trainer):
    """`transformers.Trainer` for next tokens, with balanced experts and an exact evaluation."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the loss, in training with the experts' balance, whatever the model's configuration says of it."""
        balanced = self.model.training and self.balance_weight > 0
        return super().compute_loss(model, {**inputs, "output_router_logits": balanced}, *args, **kwargs)

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure the loss per token over all tokens (not the mean of batch means), and bits per byte of the text that is scored."""
        # Starting a loader draws a random number: a run that resumes after an evaluation must not notice.
        with torch.random.fork_rng():
            loader = self.get_eval_dataloader(eval_dataset)
            was_training = self.model.training
            self.model.eval()
            sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            for batch in loader:  # on the device already
                with self.compute_loss_context_manager():
                    outputs = self.model(**batch, skip_logits=True, use_cache=False, output_router_logits=False)
                count = batch["labels"].ne(-100).sum()
                sums += torch.stack([outputs.loss.double() * count, count.double()]).to(sums.device)
            self.model.train(was_training)
        total, tokens = self.accelerator.reduce(sums, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(tokens, 1), f"{metric_key_prefix}_tokens": int(tokens)}
        if self.eval_bytes and eval_dataset is None:
            metrics[f"{metric_key_prefix}_bits_per_byte"] = total / math.log(2) / self.eval_bytes
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
