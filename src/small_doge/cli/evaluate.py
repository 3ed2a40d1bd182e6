"""`small-doge eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..utils.extras import require_extra
from ..utils.files import check_output_path
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from . import options
from .default_command import DefaultCommandGroup
from .prompts import write_what_is_asked
from .suite_options import SuiteOptions, with_suite_options
from .tables import show_table


app = typer.Typer(
    cls=DefaultCommandGroup,
    help="Score a model on benchmarks, and compare models.\n\n"
    "[bold]small-doge eval MODEL[/] is short for [bold]small-doge eval run MODEL[/].",
)
app.command("prompts")(write_what_is_asked)
console = Console()


@app.command("run")
@with_suite_options
def evaluate_model(
    model: options.ModelArgument = None,
    how: SuiteOptions = SuiteOptions(),  # noqa: B008 (it is frozen)
    controls: Annotated[
        str | None,
        typer.Option(
            help="Other models to score with plain transformers, as folders or hub names separated by commas."
        ),
    ] = None,
    check_with_hf: Annotated[
        bool,
        typer.Option(
            "--check-with-hf", help="Score the checkpoint with plain transformers too, and compare item by item."
        ),
    ] = False,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            help="Folder for results; if not set, MODEL/eval-SUITE, with what differs from the suite, as in eval-base-limit10; "
            "of a hub model, ./eval-SUITE-MODEL.",
        ),
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Score a model on the benchmarks of the published tables, with errors, chance levels and published figures.

    An interrupted run continues after its last finished task.
    """
    folder, result = score_model(model, how, threads, output_dir, controls, check_with_hf)
    from ..evaluation.score_tables import HEAD, list_above_chance, list_cells, list_warnings

    head, rows = list_cells(result)
    for cells, sure in zip(rows, list_above_chance(result), strict=True):
        cells[1] += " (chance)" if sure is False else ""
    shown = len(HEAD) + len(result["controls"])  # the files have the rest
    title = f"{result['model']}, {how.suite} suite"
    show_table(console, head[:shown], [cells[:shown] for cells in rows], title=title)
    for warning in list_warnings(result):
        console.print(warning, style="yellow", soft_wrap=True, highlight=False)
    console.print(f"Written: {folder}/results.json, .md, .html", soft_wrap=True, highlight=False)


def score_model(
    model: str | None,
    how: SuiteOptions,
    threads: int | None,
    output_dir: Path | None = None,
    controls: str | None = None,
    check_with_hf: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Score a model and write the tables; return their folder, and the content of `results.json`."""
    require_extra("small-doge eval", "eval")
    from ..evaluation.results import run_suite
    from ..evaluation.running import plan_suite
    from ..evaluation.suites import name_folder, name_settings, parse_shots
    from ..inference.export_cache import open_fast_engine

    quiet_libraries()
    tasks, shots = _split(how.tasks), parse_shots(how.shots)
    plan = plan_suite(how.suite, how.data_root, tasks, how.limit, shots, how.chat, how.skip_missing)
    name = resolve_model(model)
    # A run that asks less, or in another way, does not take the place of a whole one.
    chosen = "".join(f"-{part.lower()}" for part in [*tasks, *(f"{count}shot" for count in shots or ())])
    own = f"eval-{how.suite}{chosen}{name_settings(how.suite, how.limit, how.chat)}"
    folder = output_dir or (Path(name) / own if Path(name).is_dir() else Path(f"{own}-{name_folder(name)}"))
    check_output_path(folder)
    engine = open_fast_engine(name, how.batch_size or 8, threads, tell=_say)
    try:
        result = run_suite(engine, name, plan, folder, how.batch_size, _split(controls), check_with_hf, _say)
    finally:
        engine.close()
    return folder, result


def _say(text: str) -> None:
    console.print(text, style="dim", soft_wrap=True, highlight=False)


def _split(text: str | None) -> list[str]:
    """Split names that commas separate."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
