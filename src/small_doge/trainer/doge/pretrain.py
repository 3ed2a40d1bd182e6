"""Pre-training: `pretrain.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`."""

from collections.abc import Mapping
from typing import Any

import small_doge  # noqa: F401 (registers Doge)
from small_doge.processor.packing import PackedCollator
from small_doge.trainer.arguments import PRETRAIN_ARGUMENTS
from small_doge.trainer.base import DogeTrainer
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.setup import TrainingSetup


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    """Learn the next token of packed rows."""
    return TrainingSetup(
        "Pre-training",
        PRETRAIN_ARGUMENTS,
        DogeTrainer,
        build_extras=lambda run, model, tokenizer: {"data_collator": PackedCollator()},
        streams=True,
    )


if __name__ == "__main__":
    run_script("pretrain")
