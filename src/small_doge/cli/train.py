"""`small-doge train`: one command a stage."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from ..trainer.stages import STAGES, Stage, find_stage, list_names
from ..utils.extras import require_extra
from ..utils.logging import quiet_libraries
from .tables import show_table


app = typer.Typer(help="Train one stage with a recipe.", no_args_is_help=True)
ANY_SETTING = {"allow_extra_args": True, "ignore_unknown_options": True}
Recipe = Annotated[str | None, typer.Option(help="Recipe, a YAML file.")]
MORE = "You can add any setting as --name value; `small-doge train settings {name}` lists them."


def _make_command(stage: Stage) -> Callable[..., None]:
    def train(context: typer.Context, config: Recipe = None) -> None:
        require_extra("small-doge train", "train")
        from ..trainer.recipe import parse_command_line
        from ..trainer.runner import train_stage

        quiet_libraries()
        _, overrides = parse_command_line(context.args)
        typer.echo(train_stage(stage.name, config, overrides))

    train.__doc__ = f"{stage.summary}\n\n{MORE.format(name=stage.name)}"
    return train


for _stage in STAGES.values():
    app.command(_stage.name, context_settings=ANY_SETTING)(_make_command(_stage))
    for _alias in _stage.aliases:
        app.command(_alias, context_settings=ANY_SETTING, hidden=True)(_make_command(_stage))


@app.command("settings")
def settings(
    stage: Annotated[str, typer.Argument(help=f"Stage: {list_names()}.")] = "pretrain",
    every: Annotated[bool, typer.Option("--all", help="Show the settings of transformers' Trainer too.")] = False,
) -> None:
    """List the settings that recipes and the command line take."""
    require_extra("small-doge train", "train")
    from ..trainer.recipe import known_settings

    classes = find_stage(stage).list_arguments()
    own = {
        name
        for cls in classes
        for base in cls.__mro__
        if base.__module__.startswith("small_doge.")
        for name in base.__annotations__
    }
    rows = []
    for name, field in known_settings(classes).items():
        if every or name in own:
            default = "" if callable(getattr(field, "default_factory", None)) else field.default
            rows.append((name, str(default), str(field.metadata.get("help", ""))))
    show_table(Console(), ("Setting", "Default", "Meaning"), rows, prose=("Default", "Meaning"))
