"""What TRL's trainers need to train a Doge: its experts balanced by our loss, every dropout off, texts kept as texts."""

from typing import Any

import torch

from ..models.doge.feed_forward import DogeCDMoE
from ..ops import compute_load_balancing_loss
from ..processor.encoder import choose_template
from ..processor.guarded_tokenizer import guard_tokenizer
from ..utils.reports import stop_hub_reports
from .base import CheckpointingMixin


class DogeOnTRL(CheckpointingMixin):
    """The promises of this project for a trainer of TRL: put before it among the bases.

    TRL's own balance loss is Mixtral's, which does not fit the product of keys: it is given a coefficient of 0, and ours is
    added here, of the same forward pass.
    """

    loss_is_scaled_for_ga: bool
    current_gradient_accumulation_steps: int

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        stop_hub_reports()
        self.balance_weight = model.config.router_aux_loss_coef if model.config.is_moe else 0.0
        self._router_logits: list[torch.Tensor] | None = None
        arguments = kwargs["args"]
        if hasattr(arguments, "router_aux_loss_coef"):
            arguments.router_aux_loss_coef = 0.0 if model.config.is_moe else None
        tokenizer = kwargs["processing_class"]  # renders conversations inside TRL
        template = choose_template(tokenizer, with_answers=False)
        kwargs["processing_class"] = guard_tokenizer(tokenizer, template)
        super().__init__(*args, model=model, **kwargs)
        for module in model.modules():
            for name in ("hidden_dropout", "attention_dropout"):  # TRL turns off modules of dropout alone
                if arguments.disable_dropout and hasattr(module, name):
                    setattr(module, name, 0.0)
            if self.balance_weight and isinstance(module, DogeCDMoE):
                module.register_forward_hook(self._keep_router_logits)

    def _keep_router_logits(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        if self._router_logits is not None:
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


def _find_mask(inputs: dict[str, Any]) -> torch.Tensor | None:
    """Find the mask [B, L] of the rows that the trainer runs: given whole, or in two halves by the trainers that generate."""
    if "completion_mask" in inputs and "prompt_mask" in inputs:
        return torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return inputs.get("attention_mask")
