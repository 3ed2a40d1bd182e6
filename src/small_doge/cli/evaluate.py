"""`small-doge eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..inference import open_engine
from ..utils.errors import UserError
from ..utils.files import check_output_path, write_text
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from . import options
from .default_command import DefaultCommandGroup
from .tables import show_table


app = typer.Typer(
    cls=DefaultCommandGroup,
    help="Score a model on the tasks of the guides' tables.\n\n"
    "[bold]small-doge eval MODEL[/] is short for [bold]small-doge eval run MODEL[/].",
)
console = Console()


SuiteOption = Annotated[str, typer.Option(help="Tasks and how they are asked: base, instruct or reason.")]
TasksOption = Annotated[
    str | None, typer.Option(help="Rows or tasks to run in place of all of the suite, separated by commas.")
]
DataRoot = Annotated[Path, typer.Option(help="Folder of the tasks' data, one JSON lines file each.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Number of items of each task; all if not set.")]
ShotsOption = Annotated[
    int | None, typer.Option(min=0, help="Examples before each item; as in the guides' tables if not set.")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Texts generated together; found by a measurement if not set.")
]


@app.command("run")
def evaluate_model(
    model: options.ModelArgument = None,
    suite: SuiteOption = "base",
    tasks: TasksOption = None,
    data_root: DataRoot = Path("data"),
    limit: LimitOption = None,
    shots: ShotsOption = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder for results; MODEL/eval-SUITE if not set.")
    ] = None,
    batch_size: BatchSize = None,
    threads: options.Threads = None,
) -> None:
    """Score a model on the tasks of the guides' tables, with errors, chance levels and published figures.

    A run that was interrupted goes on after its last finished task.
    """
    name = resolve_model(model)
    folder, result = score_model(name, suite, tasks, data_root, limit, shots, batch_size, threads, output_dir)
    from ..evaluation.score_tables import list_cells

    head, rows = list_cells(result)
    for cells, row in zip(rows, result["rows"], strict=True):
        cells[1] += "" if row["above_chance"] else " (chance)"
    shown = head.index("form")  # the files have the rest
    show_table(console, head[:shown], [cells[:shown] for cells in rows], title=f"{name}, {suite} suite")
    console.print(f"Written: {folder}/results.json, .md, .html", soft_wrap=True, highlight=False)


def score_model(
    name: str,
    suite: str,
    tasks: str | None,
    data_root: Path,
    limit: int | None,
    shots: int | None,
    batch_size: int | None,
    threads: int | None,
    output_dir: Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Score a model and write the tables; return their folder, and the content of `results.json`."""
    quiet_libraries()
    try:
        from ..evaluation.score_tables import write_html, write_markdown
        from ..evaluation.suites import choose_rows, run_suite
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; install what eval needs: pip install 'small-doge[eval]'") from error
    names = [part.strip() for part in tasks.split(",") if part.strip()] if tasks else None
    choose_rows(suite, names)
    folder = output_dir or (Path(name) if Path(name).is_dir() else Path()) / f"eval-{suite}"
    check_output_path(folder)
    engine = open_engine(name, num_slots=batch_size or 8, threads=threads)
    try:
        result = run_suite(
            engine, name, suite, data_root, folder, names, limit, shots, batch_size,
            say=lambda text: console.print(text, style="dim", soft_wrap=True, highlight=False),
        )  # fmt: skip
    finally:
        engine.close()
    write_text(folder / "results.md", write_markdown(result))
    write_text(folder / "results.html", write_html(result))
    return folder, result
