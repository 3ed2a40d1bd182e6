"""`small-doge eval compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import check_output_path, write_json, write_text
from ..utils.logging import quiet_libraries
from . import evaluate, options
from .suite_options import SuiteOptions, with_suite_options
from .tables import show_table


console = Console(highlight=False)


@with_suite_options
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
    how: SuiteOptions = SuiteOptions(),  # noqa: B008 (it is frozen)
    threads: options.Threads = None,
) -> None:
    """Compare models on the same items with paired tests, and say how many more items would be needed to decide.

    The options from --suite on apply to models. Results that small-doge eval has for the same options are used again.
    """
    require_extra("small-doge eval compare", "eval")
    quiet_libraries()
    if len(names) < 2:
        raise UserError(f"compare needs two models or folders of results, got {names[0]} alone")
    if output_dir is not None:
        check_output_path(output_dir)
    from ..evaluation.comparison import (
        RESULTS,
        compare_models,
        describe_comparisons,
        is_model,
        read_scores,
    )
    from ..evaluation.comparison_tables import NOTE, list_cells, list_sizes, name_models, write_markdown

    def find_results(name: str) -> Path:
        """Return the folder of a model's results, which are made or completed if it is no folder of results itself."""
        folder = Path(name)
        if (folder / RESULTS).is_file() or ((folder / "tasks").is_dir() and not is_model(folder)):
            return folder
        return evaluate.score_model(name, how, threads)[0]

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
