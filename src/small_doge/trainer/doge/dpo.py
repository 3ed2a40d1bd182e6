"""Direct preference optimisation: `dpo.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.preference import DPO_ARGUMENTS, DogeDPOTrainer, MarginCallback
from small_doge.trainer.recipe import load_arguments
from small_doge.trainer.runner import Stage, run_stage


STAGE = Stage(
    "Direct preference optimisation", "dpo", DogeDPOTrainer, callbacks=(MarginCallback,), columns=("chosen",)
)


def run_dpo(config: str | Path | None, overrides: dict | None = None) -> Path:
    """Align a model with preferences by a recipe and settings that override it; returns the folder of the model."""
    model, data, args, settings = load_arguments(config, overrides or {}, DPO_ARGUMENTS)
    return run_stage(model, data, args, settings, STAGE)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the script."""
    run_script(run_dpo, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
