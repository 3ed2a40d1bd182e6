"""`small-doge train`: one command a stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..trainer.arguments import SFT_ARGUMENTS, STAGE_ARGUMENTS
from ..trainer.doge.pt import run_pretraining
from ..trainer.doge.sft import run_sft
from ..trainer.recipe import known_settings, parse_command_line
from ..utils.errors import UserError
from ..utils.logging import quiet_libraries
from ..utils.suggest import unknown_name_message
from .tables import show_table


app = typer.Typer(help="Train a stage by a recipe.", no_args_is_help=True)
Recipe = Annotated[str | None, typer.Option(help="Recipe, a YAML file.")]
ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}


def _run(run: Callable[[str | None, dict], Path], context: typer.Context, config: str | None) -> None:
    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    typer.echo(run(config, overrides))


@app.command("pt", context_settings=ANY_SETTING)
def pretrain(context: typer.Context, config: Recipe = None) -> None:
    """Pre-train by a recipe. Any setting can follow as --name value; `small-doge train settings` lists them."""
    _run(run_pretraining, context, config)


@app.command("sft", context_settings=ANY_SETTING)
def fine_tune(context: typer.Context, config: Recipe = None) -> None:
    """Fine-tune on conversations, with a loss on the answers alone."""
    _run(run_sft, context, config)


@app.command("dpo", context_settings=ANY_SETTING)
def align(context: typer.Context, config: Recipe = None) -> None:
    """Align a model with preferences: chosen answers over rejected ones."""
    from ..trainer.doge.dpo import run_dpo  # TRL takes seconds to import

    _run(run_dpo, context, config)


@app.command("distill", context_settings=ANY_SETTING)
def distill(context: typer.Context, config: Recipe = None) -> None:
    """Learn from a teacher: its written reasoning, or with --teacher_model_name_or_path the teacher itself."""
    from ..trainer.doge.distill import run_distillation

    _run(run_distillation, context, config)


@app.command("grpo", context_settings=ANY_SETTING)
def reinforce(context: typer.Context, config: Recipe = None) -> None:
    """Reinforce what can be verified: right answers, in the form that is asked for."""
    from ..trainer.doge.grpo import run_grpo

    _run(run_grpo, context, config)


@app.command("settings")
def settings(
    stage: Annotated[str, typer.Argument(help="pt, sft, dpo, distill or grpo.")] = "pt",
    every: Annotated[bool, typer.Option("--all", help="Those of transformers.Trainer too.")] = False,
) -> None:
    """List the settings that recipes and the command line take."""
    from ..trainer.preference import DPO_ARGUMENTS
    from ..trainer.reasoning import GRPO_ARGUMENTS
    from ..trainer.teacher import DISTILLATION_ARGUMENTS

    stages = {
        "pt": STAGE_ARGUMENTS,
        "sft": SFT_ARGUMENTS,
        "dpo": DPO_ARGUMENTS,
        "distill": DISTILLATION_ARGUMENTS,
        "grpo": GRPO_ARGUMENTS,
    }
    if stage not in stages:
        raise UserError(unknown_name_message("stage", stage, stages))
    classes = stages[stage]
    own = {
        name
        for cls in classes
        for base in cls.__mro__
        if base.__module__ == cls.__module__
        for name in base.__annotations__
    }
    rows = []
    for name, field in known_settings(classes).items():
        if every or name in own:
            default = "" if callable(getattr(field, "default_factory", None)) else field.default
            rows.append((name, str(default), str(field.metadata.get("help", ""))))
    show_table(Console(), ("Setting", "Default", "Meaning"), rows, prose=("Default", "Meaning"))
