"""Distillation: `distill.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`.

With `teacher_model_name_or_path` from a live teacher's distributions over what the student writes; without, from a
teacher's written traces, which is supervised fine-tuning with `apply_thinking_template`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.doge.sft import run_sft
from small_doge.trainer.recipe import load_arguments, read_recipe
from small_doge.trainer.runner import Stage, run_stage
from small_doge.utils.errors import UserError


TEACHER = "teacher_model_name_or_path"


def run_distillation(config: str | Path | None, overrides: dict | None = None) -> Path:
    """Distil by a recipe and settings that override it; returns the folder of the model."""
    overrides = overrides or {}
    recipe = {**read_recipe(config), **overrides}
    if not recipe.get(TEACHER):
        if TEACHER in recipe:
            raise UserError(f"{TEACHER} is empty: name a model, or leave the setting out to train on written traces")
        thinking = {} if "apply_thinking_template" in recipe else {"apply_thinking_template": True}
        return run_sft(config, {**thinking, **overrides})
    from small_doge.trainer.teacher import DISTILLATION_ARGUMENTS, DogeDistillationTrainer, load_teacher

    model, data, args, settings = load_arguments(config, overrides, DISTILLATION_ARGUMENTS)
    stage = Stage(
        "Distillation from a live teacher",
        "prompt",
        DogeDistillationTrainer,
        columns=("prompt",),
        build_extras=lambda student, tokenizer: {"teacher_model": load_teacher(args, student, tokenizer)},
        counts_own_tokens=True,
    )
    return run_stage(model, data, args, settings, stage)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the script."""
    run_script(run_distillation, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
