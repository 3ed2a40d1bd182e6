"""`small-doge bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import check_output_path, record_files, write_json
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from . import options
from .tables import show_table


console = Console()


def bench_model(
    model: options.ModelArgument = None,
    depths: Annotated[
        str,
        typer.Option(help="Numbers of tokens in the cache at which decoding is measured, separated by commas."),
    ] = "0,512,2048,8192",
    batch_sizes: Annotated[
        str, typer.Option(help="Numbers of sequences that are decoded together, separated by commas.")
    ] = "1,8",
    threads: Annotated[
        str | None,
        typer.Option(
            help="Numbers of processor threads, separated by commas; one chosen by a quick measurement if not set."
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Number of tokens to decode in each measurement.")] = 32,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for bench.json and bench.png; the model's folder if not set."),
    ] = None,
) -> None:
    """Measure prefill and decoding speed, time to the first token and memory, by depth, threads and batch size."""
    require_extra("small-doge bench", "plots")
    from ..inference import is_exported
    from ..inference.benchmark import plot_rows
    from ..utils.hardware import describe_device

    quiet_libraries()
    name = resolve_model(model)
    folder = output or (Path(name) if Path(name).is_dir() else Path())
    refusal = _find_refusal(folder)
    if refusal is not None and output is not None:
        raise refusal
    rows = _measure(
        name,
        _read_numbers("threads", threads, 1) if threads else [None],
        _read_numbers("depths", depths, 0),
        _read_numbers("batch-sizes", batch_sizes, 1),
        new_tokens,
    )
    if not rows:
        raise UserError(f"--depths {depths}: the model takes fewer tokens than each of them and --new-tokens")
    kind = "ONNX Runtime" if is_exported(name) else "PyTorch"
    show_table(
        console,
        [column.replace("_", " ") for column in rows[0]],
        (["-" if value is None else f"{value:,}" for value in row.values()] for row in rows),
        title=f"{name}, {kind}",
    )
    if refusal is not None:
        console.print(f"Not written: {refusal} with --output", style="yellow", soft_wrap=True, highlight=False)
        return
    write_json(folder / "bench.json", {"model": name, "engine": kind, "machine": describe_device(), "rows": rows})
    plot_rows(rows, folder / "bench.png", f"{name}, {kind}")
    record_files(folder, "bench.json", "bench.png")
    console.print(f"Written: {folder / 'bench.json'}, {folder / 'bench.png'}", soft_wrap=True, highlight=False)


def _measure(
    name: str,
    thread_counts: Sequence[int | None],
    depths: Sequence[int],
    batch_sizes: Sequence[int],
    new_tokens: int,
) -> list[dict[str, Any]]:
    """Open the model for each number of threads, and measure it while saying what is measured."""
    from ..inference import OnnxEngine, open_engine
    from ..inference.benchmark import measure_engine
    from ..utils.hardware import describe_device

    rows: list[dict[str, Any]] = []
    with console.status("") as status:
        for count in thread_counts:
            engine = open_engine(name, num_slots=max(batch_sizes), threads=count)
            used = engine.threads if isinstance(engine, OnnxEngine) else describe_device()["threads"]

            def say(text: str, used: int = used) -> None:
                if "left out" in text:
                    console.print(text, style="yellow")
                status.update(f"{used} threads, {text}")

            found = measure_engine(engine, depths, batch_sizes, new_tokens, say)
            rows += [{"threads": used, **row} for row in found]
    return rows


def _find_refusal(folder: Path) -> UserError | None:
    """Return the reason why results can't be written to a folder, or None."""
    try:
        check_output_path(folder)
    except UserError as error:
        return error
    return None


def _read_numbers(name: str, text: str, least: int) -> list[int]:
    """Read integers that are separated by commas.

    Raises:
        UserError: there are others, or smaller ones than `least`.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise UserError(f"--{name} {text!r} must be whole numbers from {least} on, with commas between them")
    return numbers
