"""Entry point: the journey, one command a step."""

import os
import sys

import typer

from ..utils.errors import UserError, told_errors
from . import (
    bench,
    card,
    chat,
    compare,
    data,
    demo,
    env,
    evaluate,
    export,
    generate,
    leaks,
    perplexity,
    plan,
    report,
    serve,
    tokenizer,
    train,
    upcycle,
    webui,
)


app = typer.Typer(
    help="Train, align and ship Doge, a family of small fast language models.\n\n"
    "To see every stage on this machine in minutes, run [bold]small-doge demo[/].\n\n"
    "Set SMALL_DOGE_DEBUG=1 to see where an error was raised.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
START, TRAIN, USE = "Start", "Prepare data and train", "Use a model"
app.command("env", rich_help_panel=START)(env.show_environment)
app.command("demo", rich_help_panel=START, context_settings=train.ANY_SETTING)(demo.run_demo)
app.add_typer(tokenizer.app, name="tokenizer", rich_help_panel=TRAIN)
app.add_typer(data.app, name="data", rich_help_panel=TRAIN)
app.command("plan", rich_help_panel=TRAIN, context_settings=train.ANY_SETTING)(plan.plan_run)
app.add_typer(plan.tuning, name="tune", rich_help_panel=TRAIN)
app.add_typer(train.app, name="train", rich_help_panel=TRAIN)
app.command("pipeline", rich_help_panel=TRAIN, context_settings=train.ANY_SETTING)(demo.run_recipes)
app.command("upcycle", rich_help_panel=TRAIN)(upcycle.upcycle)
app.command("generate", rich_help_panel=USE)(generate.generate_text)
app.command("chat", rich_help_panel=USE)(chat.chat)
app.command("serve", rich_help_panel=USE)(serve.serve)
app.add_typer(webui.app, name="webui", rich_help_panel=USE)
app.command("export", rich_help_panel=USE)(export.export_model)
evaluate.app.command("compare")(compare.compare_results)
evaluate.app.command("leaks")(leaks.find_in_data)
evaluate.app.command("perplexity")(perplexity.measure_texts)
app.add_typer(evaluate.app, name="eval", rich_help_panel=USE)
app.command("report", rich_help_panel=USE)(report.report_model)
app.command("card", rich_help_panel=USE)(card.write_cards)
app.command("bench", rich_help_panel=USE)(bench.bench_model)


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
