"""`small-doge eval leaks`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import check_output_path, write_json, write_text
from ..utils.logging import quiet_libraries
from .tables import show_table


if TYPE_CHECKING:
    from ..evaluation.overlaps import Item


console = Console(highlight=False)


def find_in_data(
    data: Annotated[
        list[str],
        typer.Argument(help="Training data: text or JSON lines files, folders, or prepared data."),
    ],
    data_root: Annotated[Path, typer.Option(help="Folder with the data of the tasks.")] = Path("data"),
    tasks: Annotated[
        str | None, typer.Option(help="Tasks to look for, separated by commas; all whose data are there if not set.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Number of examples to show for each task.")] = 3,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of prepared rows; the one beside them if not set.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Folder for leaks.md and leaks.json.")
    ] = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with status 1 if an item is found.")] = False,
) -> None:
    """Find evaluation items in training data: how many, from which task, and in which file.

    The data are read row by row, so only the evaluation items take memory.
    """
    require_extra("small-doge eval leaks", "eval")
    from tqdm import tqdm

    from ..evaluation.leak_tables import (
        FILE_HEAD,
        TASK_HEAD,
        describe_findings,
        list_facts,
        list_file_cells,
        list_task_cells,
        write_markdown,
    )
    from ..evaluation.leaks import find_leaks, open_all

    quiet_libraries()
    if output_dir is not None:
        check_output_path(output_dir)
    items = read_items([name.strip() for name in tasks.split(",") if name.strip()] if tasks else None, data_root)
    size = sum(file_range.size for name in data for file_range in open_all(name).ranges)
    with tqdm(total=size, unit="B", unit_scale=True, desc="reading", dynamic_ncols=True, mininterval=1) as bar:

        def advance(read: int) -> None:
            bar.total = max(bar.total, bar.n + read)  # the size of packed files is an estimate
            bar.update(read)

        findings = find_leaks(items, data, tokenizer, examples, advance)
    show_table(console, TASK_HEAD, list_task_cells(findings))
    show_table(console, FILE_HEAD, list_file_cells(findings), prose=("file", "of"))
    for task, found in findings.examples.items():
        for example in found:
            console.print(Text(f"{task} {example.id}: ", style="bold").append(example.question, style="not bold"))
            console.print(Text(f"  {example.where}: {example.excerpt}", style="yellow"))
    for fact in list_facts(findings):
        console.print(fact, style="dim", soft_wrap=True)
    if output_dir is not None:
        write_json(output_dir / "leaks.json", describe_findings(findings, data))
        write_text(output_dir / "leaks.md", write_markdown(findings, data))
        console.print(f"Written: {output_dir}/leaks.json, .md", soft_wrap=True)
    if fail and findings.num_found:
        raise typer.Exit(1)


def read_items(names: list[str] | None, data_root: Path) -> "list[Item]":
    """Read the items of tasks; of those that are not named, tasks without data are left out and told.

    Raises:
        UserError: an unknown task, or none has data.
    """
    from ..evaluation.leaks import read_item
    from ..evaluation.overlaps import Item
    from ..evaluation.task_data import MissingDataError
    from ..evaluation.task_files import list_tasks, load_task, read_task

    items: list[Item] = []
    missing: list[str] = []
    # The embedded questions are held out of the embedded corpus alone; they are looked for if they are named.
    for task in names or [name for name in list_tasks() if not read_task(name)["metadata"].get("embedded")]:
        try:
            rows = load_task(task, data_root, shots=0).rows
        except MissingDataError:
            if names:
                raise
            missing.append(task)
            continue
        items += [read_item(task, row) for row in rows]
    if not items:
        raise UserError(f"--data-root {data_root}: there are no data of any task; name the folder that has them")
    if missing:
        console.print(f"Not looked for, since their data are not there: {', '.join(missing)}", style="yellow")
    return items
