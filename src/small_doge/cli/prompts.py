"""`small-doge eval prompts`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..utils.extras import require_extra
from ..utils.files import check_output_path
from ..utils.logging import quiet_libraries
from .tables import show_table


console = Console(highlight=False)


def write_what_is_asked(
    suite: Annotated[str, typer.Option(help="Tasks and how they are asked: base, instruct, reason or demo.")] = "base",
    tasks: Annotated[
        str | None, typer.Option(help="Tasks to write instead of the whole suite, separated by commas.")
    ] = None,
    data_root: Annotated[
        Path, typer.Option(help="Folder with the data of the tasks, one JSON lines file each.")
    ] = Path("data"),
    limit: Annotated[int | None, typer.Option(min=1, help="Number of items of each task; all if not set.")] = None,
    shots: Annotated[
        int | None,
        typer.Option(min=0, help="Number of examples in each prompt; as in the published tables if not set."),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out tasks whose data are missing, and list them.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Model whose tokenizer is written too, with the end of a turn as its end token: for toolkits that stop "
            "at no other."
        ),
    ] = None,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder for the prompts.")] = Path("prompts"),
) -> None:
    """Write every prompt and right answer of a suite, for reading or for another toolkit.

    They are the ones that `small-doge eval` asks, with their examples, as JSON lines; chat templates are not in them.
    """
    require_extra("small-doge eval", "eval")
    from ..evaluation.prompts import write_chat_tokenizer, write_prompts
    from ..evaluation.running import plan_suite

    quiet_libraries()
    names = [part.strip() for part in (tasks or "").split(",") if part.strip()]
    check_output_path(output_dir)
    plan = plan_suite(suite, data_root, names, limit, None if shots is None else [shots], skip_missing=skip_missing)
    if tokenizer is not None:
        end = write_chat_tokenizer(tokenizer, output_dir / "tokenizer")
        console.print(f"Written: {output_dir}/tokenizer, whose texts end at {end}", markup=False, soft_wrap=True)
    content = write_prompts(plan, output_dir)
    cells = [[name, f"{task['items']:,}", str(task["shots"]), task["form"]] for name, task in content["tasks"].items()]
    show_table(console, ["task", "items", "shots", "form"], cells, title=f"{suite} suite")
    for row, why in content["skipped"].items():
        console.print(f"{row} is left out: {why}", markup=False, soft_wrap=True)
    console.print(f"Written: {output_dir}/prompts.json, tasks.txt, TASK/test.jsonl", soft_wrap=True)
