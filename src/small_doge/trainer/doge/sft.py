"""Supervised fine-tuning: `sft.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`.

With `apply_thinking_template: true` it learns a teacher's written reasoning too, as the stage `distill` does.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.arguments import SFT_ARGUMENTS
from small_doge.trainer.doge import pretrain
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.setup import TrainingSetup


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    """Train as in pre-training, with labels on the answers alone."""
    title = "Distillation" if settings.get("apply_thinking_template") else "Supervised fine-tuning"
    setup = pretrain.set_up(settings)
    return replace(setup, title=title, arguments=SFT_ARGUMENTS, columns=(*setup.columns, "labels"))


if __name__ == "__main__":
    run_script("sft")
