"""`small-doge train`: one command a stage."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..trainer.arguments import DataArguments, ModelArguments, StageArguments
from ..trainer.doge.pt import run_pretraining
from ..trainer.recipe import known_settings, parse_command_line
from ..utils.logging import quiet_libraries


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


@app.command("settings")
def settings(every: Annotated[bool, typer.Option("--all", help="Those of transformers.Trainer too.")] = False) -> None:
    """List the settings that recipes and the command line take."""
    own = {name for cls in (ModelArguments, DataArguments, StageArguments) for name in cls.__annotations__}
    table = Table("Setting", "Default", "Meaning")
    for name, field in known_settings().items():
        if every or name in own:
            default = "" if callable(getattr(field, "default_factory", None)) else field.default
            table.add_row(name, str(default), str(field.metadata.get("help", "")))
    Console().print(table)
