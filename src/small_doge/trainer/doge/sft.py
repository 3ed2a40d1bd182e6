"""Supervised fine-tuning: `sft.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`.

Distillation on a teacher's traces is the same with `apply_thinking_template: true`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.arguments import SFT_ARGUMENTS, FineTuningDataArguments
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.recipe import load_arguments
from small_doge.trainer.runner import language_stage, run_stage


def run_sft(config: str | Path | None, overrides: dict | None = None) -> Path:
    """Fine-tune on conversations by a recipe and settings that override it; returns the folder of the model."""
    model, data, args, settings = load_arguments(config, overrides or {}, SFT_ARGUMENTS)
    assert isinstance(data, FineTuningDataArguments)
    title = "Distillation" if data.apply_thinking_template else "Supervised fine-tuning"
    return run_stage(model, data, args, settings, language_stage(title, "sft"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the script."""
    run_script(run_sft, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
