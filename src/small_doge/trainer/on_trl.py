"""What TRL's trainers need to train a Doge: its experts balanced by our loss, every dropout off, texts kept as texts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ..models.doge.feed_forward import DogeCDMoE
from ..ops import compute_load_balancing_loss
from ..processor.encoder import choose_template
from ..processor.guarded_tokenizer import guard_tokenizer
from ..utils.errors import UserError
from ..utils.reports import stop_hub_reports
from .base import CheckpointingMixin


class DogeOnTRL(CheckpointingMixin):
    """The promises of this project for a trainer of TRL: put before it among the bases.

    TRL's own balance loss is Mixtral's, which does not fit the product of keys: it is given a coefficient of 0, and ours is
    added here, of the same forward pass, with the weight that the settings name, or else the model's configuration.

    Raises:
        UserError: the settings name a weight, and the model has no experts.
    """

    loss_is_scaled_for_ga: bool
    current_gradient_accumulation_steps: int

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        stop_hub_reports()
        self._router_logits: list[torch.Tensor] | None = None
        arguments = kwargs["args"]
        model.config.output_router_logits = False  # with it, TRL computes its balance loss whatever the coefficient
        given = getattr(arguments, "router_aux_loss_coef", None)
        if given and not model.config.is_moe:
            raise UserError(f"router_aux_loss_coef={given} needs a model with experts; leave it out")
        if given is not None:
            model.config.router_aux_loss_coef = given
        if hasattr(arguments, "router_aux_loss_coef"):
            arguments.router_aux_loss_coef = 0.0 if model.config.is_moe else None
        tokenizer = kwargs["processing_class"]  # renders conversations inside TRL
        template = choose_template(tokenizer, with_answers=False)
        kwargs["processing_class"] = guard_tokenizer(tokenizer, template)
        with _read_references_as_ours(type(self)):
            super().__init__(*args, model=model, **kwargs)
        if hasattr(arguments, "router_aux_loss_coef"):
            arguments.router_aux_loss_coef = given
        for module in model.modules():
            for name in ("hidden_dropout", "attention_dropout"):  # TRL turns off modules of dropout alone
                if arguments.disable_dropout and hasattr(module, name):
                    setattr(module, name, 0.0)
            if self.balance_weight and isinstance(module, DogeCDMoE):
                module.register_forward_hook(self._keep_router_logits)

    def _keep_router_logits(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        # The reference of an adapter is the same model, which runs within the same loss, but without gradients.
        if self._router_logits is not None and torch.is_grad_enabled():
            self._router_logits.append(outputs[1])

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute TRL's loss, and the experts' balance."""
        if not self.balance_weight or not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._router_logits = []
        try:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = result[0] if return_outputs else result
            top_k = self.accelerator.unwrap_model(model).config.num_experts_per_tok
            mask = _find_mask(inputs)
            balance = self.balance_weight * compute_load_balancing_loss(tuple(self._router_logits), top_k, mask)
        finally:
            self._router_logits = None
        if self.loss_is_scaled_for_ga:
            balance = balance / self.current_gradient_accumulation_steps
        loss = loss + balance
        return (loss, result[1]) if return_outputs else loss


@contextmanager
def _read_references_as_ours(trainer: type) -> Iterator[None]:
    """Let TRL read a reference model by our class, and not by the one of this name in `transformers`.

    That one routes experts by the logits of other tokens, and keeps other keys past the window.
    """
    module: Any = next(sys.modules[base.__module__] for base in trainer.__mro__ if base.__module__.startswith("trl."))
    read = module.create_model_from_path
    module.create_model_from_path = partial(read, architecture=AutoModelForCausalLM, output_router_logits=False)
    try:
        yield
    finally:
        module.create_model_from_path = read


def _find_mask(inputs: dict[str, Any]) -> torch.Tensor | None:
    """Find the mask [B, L] of the rows that the trainer runs: given whole, or in two halves by the trainers that generate."""
    if "completion_mask" in inputs and "prompt_mask" in inputs:
        return torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return inputs.get("attention_mask")
