"""Group relative policy optimisation: `grpo.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.arguments import FineTuningDataArguments
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.reasoning import GRPO_ARGUMENTS, DogeGRPOTrainer, GroupCallback
from small_doge.trainer.recipe import load_arguments
from small_doge.trainer.rewards import make_rewards
from small_doge.trainer.runner import Stage, run_stage
from small_doge.utils.errors import UserError


def run_grpo(config: str | Path | None, overrides: dict | None = None) -> Path:
    """Reinforce verifiable answers by a recipe and settings that override it; returns the folder of the model."""
    model, data, args, settings = load_arguments(config, overrides or {}, GRPO_ARGUMENTS)
    assert isinstance(data, FineTuningDataArguments)
    rewards = make_rewards(
        args.reward_funcs, cast(tuple[str, str], tuple(data.thinking_tags)), args.max_completion_length
    )
    if args.reward_weights is not None and len(args.reward_weights) != len(rewards):
        raise UserError(
            f"reward_weights={args.reward_weights}: {len(rewards)} rewards are named in reward_funcs, give a weight for each"
        )

    def build_extras(*_: Any) -> dict[str, Any]:
        return {"reward_funcs": rewards}

    stage = Stage(
        "Group relative policy optimisation",
        "grpo",
        DogeGRPOTrainer,
        callbacks=(GroupCallback,),
        columns=("prompt", "solution"),
        build_extras=build_extras,
        counts_own_tokens=True,
    )
    return run_stage(model, data, args, settings, stage)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the script."""
    run_script(run_grpo, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
