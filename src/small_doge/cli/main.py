"""Entry point: the journey, one command a step."""

import os
import sys

import typer

from ..utils.errors import UserError, told_errors
from . import bench, chat, data, demo, env, export, generate, plan, tokenizer, train, upcycle


app = typer.Typer(
    help="Train, try and grow Doge, a family of small fast language models. The journey, step by step: "
    "[bold]env[/] (what this machine can do), [bold]demo[/] (every stage in minutes), [bold]tokenizer[/], "
    "[bold]data[/], [bold]plan[/] and [bold]tune[/] (what a run takes), [bold]train[/], [bold]pipeline[/] (every stage by a folder of recipes), [bold]generate[/] and [bold]chat[/] (try a model), [bold]export[/] (one portable folder), [bold]bench[/] (its speed), [bold]upcycle[/] (grow a dense model into experts). SMALL_DOGE_DEBUG=1 shows where an error was raised.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("env")(env.show_environment)
app.command("demo", context_settings=train.ANY_SETTING)(demo.run_demo)
app.command("pipeline", context_settings=train.ANY_SETTING)(demo.run_recipes)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command("plan", context_settings=train.ANY_SETTING)(plan.plan_run)
app.add_typer(plan.tuning, name="tune")
app.add_typer(train.app, name="train")
app.command("chat")(chat.chat)
app.command("generate")(generate.generate_text)
app.command("bench")(bench.bench_model)
app.command("export")(export.export_model)
app.command("upcycle")(upcycle.upcycle)


def _check_encoding(words: list[str]) -> None:
    """Raise a `UserError` for bytes that are not text in the terminal's encoding; Python hides them as surrogates."""
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"the argument {os.fsencode(word)!r} is not UTF-8; set the terminal to UTF-8 (for instance "
                "LANG=C.UTF-8), or rename the file"
            ) from None


def main() -> None:
    """Run the command; bad input is answered by one message, and with a traceback too where SMALL_DOGE_DEBUG=1."""
    with told_errors("small-doge", lambda message: typer.secho(f"Error: {message}", fg="red", err=True)):
        _check_encoding(sys.argv)
        app()


if __name__ == "__main__":
    main()
