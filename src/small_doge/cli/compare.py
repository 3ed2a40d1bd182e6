"""`small-doge eval compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..utils.errors import UserError
from ..utils.files import check_output_path, write_json, write_text
from ..utils.logging import quiet_libraries
from . import evaluate, options
from .tables import show_table


console = Console(highlight=False)


def compare_results(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="FIRST OTHER...",
            help="Folders of results of small-doge eval, or models, which are scored first. Each is compared with the first.",
        ),
    ],
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder for comparison.md and comparison.json.")
    ] = None,
    suite: evaluate.SuiteOption = "base",
    tasks: evaluate.TasksOption = None,
    data_root: evaluate.DataRoot = Path("data"),
    limit: evaluate.LimitOption = None,
    shots: evaluate.ShotsOption = None,
    batch_size: evaluate.BatchSize = None,
    threads: options.Threads = None,
) -> None:
    """Compare models on the same items: by paired tests, with how many more items would be needed to tell.

    Options from --suite on are for models that are yet to be scored.
    """
    quiet_libraries()
    if len(names) < 2:
        raise UserError(f"compare needs two models or folders of results, got {names[0]} alone")
    if output_dir is not None:
        check_output_path(output_dir)
    from ..evaluation.comparison import (
        RESULTS,
        compare_models,
        describe_comparisons,
        has_scores_of,
        is_model,
        read_scores,
    )
    from ..evaluation.comparison_tables import NOTE, list_cells, list_sizes, name_models, write_markdown

    is_default = tasks is None and limit is None and shots is None

    def find_results(name: str) -> Path:
        """Return the folder of a model's results, which are made if there are none."""
        folder, known = Path(name), Path(name) / f"eval-{suite}"
        if (folder / RESULTS).is_file() or ((folder / "tasks").is_dir() and not is_model(folder)):
            return folder
        if is_default and has_scores_of(known, name):
            console.print(f"{name}: taken from {known}", style="dim", soft_wrap=True)
            return known
        # Results on all items stay: those of a part, or asked in another way, have a folder of their own.
        part = None if is_default else (folder if folder.is_dir() else Path()) / f"eval-{suite}-part"
        return evaluate.score_model(name, suite, tasks, data_root, limit, shots, batch_size, threads, part)[0]

    folders = [find_results(name) for name in names]
    models = [read_scores(folder) for folder in folders]
    first, comparisons = models[0], compare_models(models)
    own, *others = name_models(models)
    for other, comparison in zip(others, comparisons, strict=True):
        head, rows = list_cells((own, other), comparison)
        show_table(console, head, rows, title=f"{own} and {other}, {first.result['suite']} suite", prose=head[-1:])
        for note in comparison.notes:
            is_warning = "left out" in note or "another way" in note
            console.print(note, style="yellow" if is_warning else "dim", soft_wrap=True)
    for fact in (*list_sizes(first, comparisons), NOTE):
        console.print(fact, style="dim", soft_wrap=True)
    if output_dir is not None:
        write_json(output_dir / "comparison.json", describe_comparisons(first, comparisons))
        write_text(output_dir / "comparison.md", write_markdown(first, comparisons))
        console.print(f"Written: {output_dir}/comparison.json, .md", soft_wrap=True)
