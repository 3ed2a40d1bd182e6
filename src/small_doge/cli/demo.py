"""`small-doge demo` and `small-doge pipeline`: every stage, one after the other, and a report of what each added."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..trainer.stages import STAGES
from ..utils.extras import require_extra
from ..utils.logging import quiet_libraries
from ..utils.paths import DEMO_DIR, LOSS_PICTURE, find_tiny_recipes
from .tables import show_table


if TYPE_CHECKING:
    from ..evaluation.journey import Result
    from ..trainer.pipeline import Step


console = Console()
QUESTIONS = "questions.jsonl"
StagesOption = Annotated[
    str | None, typer.Option("--stages", help="Stages to run, separated by commas; all if not set.")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Discard these stages and start them over.")]


def run_demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = DEMO_DIR,
    stages: StagesOption = None,
    fresh: FreshOption = False,
) -> None:
    """Run every stage on the embedded corpus, in minutes: tokenizer, pretrain, sft, dpo, distill, grpo.

    If you run it again, it continues where it stopped. You can add settings of the recipes: --name value for all stages,
    --stage.name value for one.
    """
    require_extra("small-doge demo", "train")
    _go(
        find_tiny_recipes(),
        output,
        stages,
        fresh,
        context.args,
        "SmallDoge: from nothing to a model that reasons",
        None,
    )
    console.print("Next: small-doge chat, and small-doge export for speed", highlight=False)


def run_recipes(
    context: typer.Context,
    recipe: Annotated[Path, typer.Option("--recipe", help="Folder of recipes, such as recipes/doge/Doge-20M.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results of the stages.")],
    stages: StagesOption = None,
    fresh: FreshOption = False,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="File of JSON lines to ask after every stage, with `question` and, where it can be scored, `answer`; "
            "by default questions.jsonl in the folder of recipes."
        ),
    ] = None,
) -> None:
    """Run every stage that a folder has recipes for, and report what each stage added.

    Without a file of questions, the model is asked about the embedded corpus, which only a model trained on it can answer.
    """
    require_extra("small-doge pipeline", "train")
    from ..evaluation.journey import read_questions

    if questions is None and (recipe / QUESTIONS).is_file():
        questions = recipe / QUESTIONS
    asked = read_questions(questions) if questions else None
    if asked and (unscored := sum(answer is None for _, answer in asked)):
        console.print(f"{questions}: {unscored} of {len(asked)} questions have no answer to score by", soft_wrap=True)
    _go(recipe, output, stages, fresh, context.args, f"Pipeline: {recipe}", asked)


def _go(
    recipes: Path,
    output: Path,
    stages: str | None,
    fresh: bool,
    words: Sequence[str],
    title: str,
    questions: list[tuple[str, str | None]] | None,
) -> None:
    from ..evaluation.journey import format_score, measure_stage, write_report
    from ..trainer.pipeline import TOKENIZER, Step, read_versions, run_pipeline
    from ..trainer.recipe import parse_command_line

    quiet_libraries()
    _, overrides = parse_command_line(words)
    wanted = [name.strip() for name in stages.split(",") if name.strip()] if stages else None

    def measure(step: Step) -> None:
        if step.name != TOKENIZER:
            scores = measure_stage(step.folder, STAGES[step.name].row_format != "text", questions)["scores"]
            console.print(
                "  ".join(f"{name} {format_score(value, name)}" for name, value in scores.items()), style="cyan"
            )

    steps = run_pipeline(recipes, output, wanted, overrides, fresh, say=console.print, after=measure)
    results = [_read_result(step, questions) for step in steps if step.name != TOKENIZER and step.done]
    if not results:
        return
    page = write_report(output, title, results, read_versions())
    show_table(console, *_make_table(results))
    for name, answer in ((r.name, r.samples) for r in (results[0], results[-1])):
        for question, text in answer.items():
            console.print(f"[dim]{name}[/]  [bold]{question}[/]\n[cyan]{escape(text)}[/]", highlight=False)
    console.print(f"Model: {results[-1].picture.parent}   report: {page}", soft_wrap=True)


def _read_result(step: "Step", questions: list[tuple[str, str | None]] | None) -> "Result":
    from ..evaluation.journey import Result, measure_stage
    from ..trainer.pipeline import read_facts

    found: dict[str, Any] = measure_stage(step.folder, STAGES[step.name].row_format != "text", questions)
    return Result(step.name, found["scores"], found["samples"], read_facts(step), step.folder / LOSS_PICTURE)


def _make_table(results: "Sequence[Result]") -> tuple[list[str], list[list[str]]]:
    """Return headings and rows."""
    from ..evaluation.journey import format_score

    names = list(dict.fromkeys(name for result in results for name in result.scores))
    rows = [
        [result.name, *(format_score(result.scores.get(name), name) for name in names), str(result.seconds)]
        for result in results
    ]
    return ["Stage", *names, "seconds"], rows
