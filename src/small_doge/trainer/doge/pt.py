"""Pre-training: `pt.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.recipe import load_arguments
from small_doge.trainer.runner import language_stage, run_stage


def run_pretraining(config: str | Path | None, overrides: dict | None = None) -> Path:
    """Pre-train by a recipe and settings that override it; returns the folder of the model."""
    model, data, args, settings = load_arguments(config, overrides or {})
    return run_stage(model, data, args, settings, language_stage("Pre-training", "pt"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the script."""
    run_script(run_pretraining, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
