"""A stage of one file and one entry, as a user would add it: learn texts backwards."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from small_doge.trainer.base import DogeTrainer
from small_doge.trainer.doge import pretrain
from small_doge.trainer.setup import TrainingSetup
from small_doge.trainer.stages import Stage, register_stage


TOY = Stage(
    "backwards",
    "Learn texts from their last token to their first.",
    __name__,
    row_format="text",
    starts_from="pretrain",
    aliases=("reversed",),
)


class BackwardsTrainer(DogeTrainer):
    """Turns the tokens of a batch around."""

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
        return super().compute_loss(model, {**inputs, "input_ids": inputs["input_ids"].flip(1)}, **options)


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    return replace(pretrain.set_up(settings), title="Learning backwards", trainer=BackwardsTrainer)


register_stage(TOY)
