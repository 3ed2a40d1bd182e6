"""Distillation: `distill.py --config RECIPE.yaml [--setting value]`, plainly or by `accelerate launch`.

With `teacher_model_name_or_path` it learns a live teacher's distributions over what the student writes; without, a
teacher's written traces, which is supervised fine-tuning with `apply_thinking_template`.
"""

from collections.abc import Mapping
from typing import Any

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.doge import sft
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.setup import TrainingSetup
from small_doge.utils.errors import UserError


TEACHER = "teacher_model_name_or_path"


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    """Choose between a live teacher and written traces.

    Raises:
        ValueError: the setting for the teacher is there, and empty.
    """
    if TEACHER not in settings:
        return sft.set_up(settings)
    if not settings[TEACHER]:
        raise UserError(f"{TEACHER} is empty: name a model, or leave the setting out to train on written traces")
    from small_doge.trainer.teacher import (  # TRL takes seconds to import
        DISTILLATION_ARGUMENTS,
        DogeDistillationTrainer,
        load_teacher,
    )

    return TrainingSetup(
        "Distillation from a live teacher",
        DISTILLATION_ARGUMENTS,
        DogeDistillationTrainer,
        columns=("prompt",),
        row_format="prompt",
        build_extras=lambda run, model, tokenizer: {"teacher_model": load_teacher(run.args, model, tokenizer)},
        counts_own_tokens=True,
    )


if __name__ == "__main__":
    run_script("distill")
