"""`small-doge train`: one command a stage."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..trainer.arguments import SFT_ARGUMENTS, STAGE_ARGUMENTS
from ..trainer.doge.pt import run_pretraining
from ..trainer.doge.sft import run_sft
from ..trainer.recipe import known_settings, parse_command_line
from ..utils.logging import quiet_libraries
from ..utils.suggest import unknown_name_message


app = typer.Typer(help="Train a stage by a recipe.", no_args_is_help=True)
ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("pt", context_settings=ANY_SETTING)
def pretrain(
    context: typer.Context,
    config: Annotated[str | None, typer.Option(help="Recipe, a YAML file.")] = None,
) -> None:
    """Pre-train by a recipe. Any setting can follow as --name value; `small-doge train settings` lists them."""
    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    typer.echo(run_pretraining(config, overrides))


@app.command("sft", context_settings=ANY_SETTING)
def fine_tune(
    context: typer.Context,
    config: Annotated[str | None, typer.Option(help="Recipe, a YAML file.")] = None,
) -> None:
    """Fine-tune on conversations, with a loss on the answers alone; or on a teacher's reasoning."""
    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    typer.echo(run_sft(config, overrides))


@app.command("dpo", context_settings=ANY_SETTING)
def align(
    context: typer.Context,
    config: Annotated[str | None, typer.Option(help="Recipe, a YAML file.")] = None,
) -> None:
    """Align a model with preferences: chosen answers over rejected ones."""
    from ..trainer.doge.dpo import run_dpo  # TRL takes seconds to import

    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    typer.echo(run_dpo(config, overrides))


@app.command("settings")
def settings(
    stage: Annotated[str, typer.Argument(help="pt, sft or dpo.")] = "pt",
    every: Annotated[bool, typer.Option("--all", help="Those of transformers.Trainer too.")] = False,
) -> None:
    """List the settings that recipes and the command line take."""
    from ..trainer.preference import DPO_ARGUMENTS

    stages = {"pt": STAGE_ARGUMENTS, "sft": SFT_ARGUMENTS, "dpo": DPO_ARGUMENTS}
    if stage not in stages:
        raise ValueError(unknown_name_message("stage", stage, stages))
    classes = stages[stage]
    own = {
        name
        for cls in classes
        for base in cls.__mro__
        if base.__module__ == cls.__module__
        for name in base.__annotations__
    }
    table = Table("Setting", "Default", "Meaning")
    for name, field in known_settings(classes).items():
        if every or name in own:
            default = "" if callable(getattr(field, "default_factory", None)) else field.default
            table.add_row(name, str(default), str(field.metadata.get("help", "")))
    Console().print(table)
