"""The trainer that all stages share: our schedule, whole checkpoints, an exact evaluation."""

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer

from ..processor.stream import StreamLoader
from ..utils.files import write_json, write_manifest, write_text
from ..utils.hardware import describe_device
from ..utils.logging import get_logger
from ..utils.scheduler import WSDScheduler, split_steps
from .callbacks import make_diverged_error
from .checkpoints import DATA_POSITION, MACHINE, RECIPE, rotate
from .identity import write_identity


logger = get_logger(__name__)


class RunPromises:
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
        self.settings = settings
        self.identity = identity
        self.eval_bytes = eval_bytes
        self.optimizer_state = optimizer_state
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """A stream is read as it is: its loader gives each process its part already."""
        return super().get_train_dataloader() if self.stream is None else self.stream

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The warmup-stable-decay schedule is ours; others are those of `transformers`."""
        if self.args.lr_scheduler_type != "warmup_stable_decay":
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            optimizer = optimizer or self.optimizer
            warmup, stable, decay = split_steps(
                num_training_steps, self.args.warmup_steps, self.args.decay_steps, self.args.stable_steps
            )
            peak = self.args.learning_rate
            self.lr_scheduler = WSDScheduler(
                optimizer, warmup, stable, decay, min_lr=self.args.min_lr_ratio * peak, decay_type=self.args.decay_type
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """A new optimizer, with the state of the checkpoint that the run continues from."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.optimizer_state is not None:
            state = torch.load(self.optimizer_state, map_location="cpu", weights_only=True)
            rates = [group["lr"] for group in optimizer.param_groups]
            before = state["param_groups"][0]["lr"]
            if abs(before - rates[0]) > 0.01 * rates[0]:
                logger.warning(
                    "learning_rate goes from %g at %s to %g: that checkpoint is not from the stable phase of this rate",
                    before,
                    self.optimizer_state.parent,
                    rates[0],
                )
            optimizer.load_state_dict(state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = group["initial_lr"] = rate
            self.optimizer_state = None
        return optimizer

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save, mark as whole, and only then delete older ones. Nothing is saved once the numbers are not finite."""
        self._check_finite()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_text(folder / RECIPE, yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True))
            if self.stream is not None:
                steps = self.state.global_step - self.stream.first_step
                position = self.stream.state_after(steps * self.args.gradient_accumulation_steps)
                write_json(folder / DATA_POSITION, position)
            if self.identity is not None:
                write_identity(folder, self.identity)
            write_json(folder / MACHINE, {"adapted": self.args.adapted, "machine": describe_device()})
            write_manifest(folder)
            best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
            rotate(self.args.output_dir, limit, best)

    def _check_finite(self) -> None:
        """Raise a `DivergedError` if a weight, or what the optimizer keeps of it, is not finite on any process."""
        tensors = [*self.model.parameters()]
        tensors += [x for kept in self.optimizer.state.values() for x in kept.values() if torch.is_tensor(x)]
        bad = sum(not bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())
        if self.accelerator.reduce(torch.tensor(float(bad), device=self.args.device), "sum").item() > 0:
            raise make_diverged_error(
                f"the weights are not finite at step {self.state.global_step}", self.args.output_dir
            )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing where the last step is done already: a run may die between its last checkpoint and its end."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the trainer does, but with the optimizer's settings of this run, and the rates of its schedule."""
        given = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        peaks = list(getattr(scheduler, "base_lrs", []))
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.is_deepspeed_enabled or not isinstance(scheduler, WSDScheduler | LambdaLR):
            return
        for group, settings in zip(self.optimizer.param_groups, given, strict=True):
            group.update(settings)
        scheduler.base_lrs = peaks
        scheduler._last_lr = list(scheduler.get_lr())
        for group, peak, rate in zip(self.optimizer.param_groups, peaks, scheduler._last_lr, strict=True):
            group["initial_lr"], group["lr"] = peak, rate

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """ZeRO-3 gathers tied weights as tensors of their own; saved files name them once, as always."""
        if state_dict is not None and self.model.config.tie_word_embeddings:
            state_dict = {k: v for k, v in state_dict.items() if k not in self.model._tied_weights_keys}
        super()._save(output_dir, state_dict)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """A due checkpoint is saved before the evaluation starts, unless it is the evaluation that decides on it."""
        if self.control.should_save and self.control.should_evaluate and not self.args.load_best_model_at_end:
            self.control.should_evaluate = False
            super()._maybe_log_save_evaluate(*args, **kwargs)
            self.control.should_save, self.control.should_log = False, False
            self.control.should_evaluate = True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Starting a loader draws a random number: a run that resumes after an evaluation must not notice."""
        with torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)


class DogeTrainer(RunPromises, Trainer):
    """`transformers.Trainer` for next tokens, with an exact evaluation."""

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss per token over all tokens (not the mean of batch means), and bits per byte of the text that is scored."""
        # Starting a loader draws a random number: a run that resumes after an evaluation must not notice.
        with torch.random.fork_rng():
            loader = self.get_eval_dataloader(eval_dataset)
            model = self._wrap_model(self.model, training=False)
            was_training = model.training
            model.eval()
            sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
            for batch in loader:
                inputs = self._prepare_inputs(batch)
                with self.compute_loss_context_manager():
                    loss = model(**inputs, skip_logits=True, use_cache=False).loss
                count = inputs["labels"].ne(-100).sum()
                sums += torch.stack([loss.double() * count, count.double()]).to(sums.device)
            model.train(was_training)
        total, tokens = self.accelerator.reduce(sums, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(tokens, 1), f"{metric_key_prefix}_tokens": int(tokens)}
        if self.eval_bytes and eval_dataset is None:
            metrics[f"{metric_key_prefix}_bits_per_byte"] = total / math.log(2) / self.eval_bytes
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
