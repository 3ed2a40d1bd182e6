"""`small-doge data`: find, fetch, clean, prepare and look at training data."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..processor.choices import DATA_ROOT, FILTERS
from ..processor.data_config import DataConfig
from ..trainer.stages import find_stage, list_names
from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import OVERWRITE_HELP, check_output, whole_folder
from ..utils.logging import quiet_libraries
from ..utils.model_folder import load_tokenizer
from ..utils.paths import resolve_model
from .field_options import with_field_options
from .tables import show_table


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


app = typer.Typer(help="Find, download, clean, prepare and inspect training data.", no_args_is_help=True)
console = Console()

STYLES = {"learnt": "black on green", "context": "dim", "rejected": "black on red", "padding": "italic cyan"}
LEGEND = "green: learnt (in the loss)   dim: read only   red: rejected answer"
PICTURE = "statistics.png"
StageOption = Annotated[str, typer.Option(help=f"Stage that the rows are for: {list_names()}.")]
# Settings of the data that `prepare` takes: all but those that its other options and the stage decide on.
PREPARE_SETTINGS = [
    field.name
    for field in fields(DataConfig)
    if field.name not in ("datasets_and_ratios", "row_format", "formatting_func", "streaming", "cache_dir")
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(help="Tokenizer or model; if not set, the tokenizer of the data or of the demo's newest stage."),
]


@app.command("list")
def list_catalog() -> None:
    """Show the public data sets that are known by a short name."""
    require_extra("small-doge data", "data")
    from ..processor.download import iterate_catalog

    columns = ("Name", "Stage", "Hub name and subset", "Split", "Fields", "Licence", "Rows", "GB")
    show_table(console, columns, iterate_catalog())
    console.print(
        "Rows and sizes are rounded from the cards on the hub. Any owner/name[:subset], folder or file works too.\n"
        f"Fetch: small-doge data download NAME --output DIR, then: export {DATA_ROOT}=DIR",
        highlight=False,
    )


@app.command("download")
def download(
    names: Annotated[list[str], typer.Argument(help="Names of `small-doge data list`, or owner/name[:subset].")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Folder of the mirror; {DATA_ROOT} or ./datasets if not set."),
    ] = None,
    files: Annotated[int | None, typer.Option(help="Download only this many files of each data set.")] = None,
    num_proc: Annotated[int, typer.Option(help="Number of files to download at the same time.")] = 4,
) -> None:
    """Download data sets into a folder with the hub's layout. If you run it again, it continues where it stopped."""
    require_extra("small-doge data", "data")
    from ..processor.download import download as download_source

    quiet_libraries()
    root = output or Path(os.environ.get(DATA_ROOT) or "datasets")
    for name in names:
        typer.echo(download_source(name, root, files, num_proc))
    if os.environ.get(DATA_ROOT) != str(root):
        typer.echo(f"To use it: export {DATA_ROOT}={root.resolve()}", err=True)


@app.command("prepare")
@with_field_options(DataConfig, PREPARE_SETTINGS, "settings")
def prepare_data(
    data: Annotated[list[str], typer.Option(help="NAME=RATIO, or NAME alone for equal shares; repeat for a mix.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the prepared data set.")],
    stage: StageOption = "pretrain",
    tokenizer: TokenizerOption = None,
    *,
    settings: dict[str, Any],
    executor: Annotated[str | None, typer.Option(help="Executor of datatrove: local, slurm or ray.")] = None,
    workers: Annotated[int, typer.Option(help="Number of tasks that run at once; -1 for no limit.")] = -1,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    time: Annotated[str, typer.Option(help="Time limit of a Slurm task.")] = "20:00:00",
    environment: Annotated[str | None, typer.Option(help="Shell command that a Slurm task runs first.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Mix, render, tokenise and pack data sets for a stage. If you run it again, it continues where it stopped."""
    require_extra("small-doge data", "data")
    from ..processor.inspection import compute_statistics, plot_statistics
    from ..processor.prepare import PREPARED_BY, REPORT, Preparation, prepare
    from ..processor.report import FAILED
    from ..processor.scale import Cluster, prepare_at_scale

    quiet_libraries()
    loaded = _find_tokenizer(tokenizer)
    shares = parse_shares(data)
    _check_sources([name for share in shares for name in share], output, overwrite)
    work = output.with_name(f".{output.name}.work")
    config = _configure(stage, shares, cache_dir=str(work), **settings)
    if executor is None:
        splits = prepare(config, loaded, output / FAILED)
    else:
        cluster = Cluster(executor, workers, partition, time, environment=environment)
        splits = prepare_at_scale(config, loaded, cluster, output / FAILED)
    if splits is None:
        console.print("Tasks are on their way. Run the same command again when they are done.")
        return
    made = Preparation(config, loaded).folder
    with whole_folder(output, PREPARED_BY, overwrite) as folder:
        splits.save_to_disk(str(folder))
        loaded.save_pretrained(folder / "tokenizer")
        for name in (REPORT, FAILED):
            if (made / name).is_file():
                shutil.copy2(made / name, folder / name)
        plot_statistics(compute_statistics(splits["train"]), folder / PICTURE, output.name)
    shutil.rmtree(work)
    show_statistics(output)


@app.command("inspect")
def inspect(
    path: Annotated[
        str, typer.Argument(help="Prepared folder, or any data set, which is shown as --stage would prepare it.")
    ],
    stage: StageOption = "pretrain",
    tokenizer: TokenizerOption = None,
    rows: Annotated[int, typer.Option(help="Number of rows to show.")] = 2,
    split: Annotated[str, typer.Option(help="Split: train or test.")] = "train",
    source: Annotated[str | None, typer.Option(help="Show only rows of this data set.")] = None,
    max_length: Annotated[
        int, typer.Option(help="Maximum number of tokens in a row, for data that are not prepared.")
    ] = 512,
) -> None:
    """Print rows as the model will see them, with special tokens, and the loss mask in colour."""
    require_extra("small-doge data", "data")
    from ..processor.inspection import is_prepared, split_segments
    from ..processor.mixing import open_streams
    from ..processor.prepared import load_prepared

    quiet_libraries()
    splits: Any = load_prepared(path)
    if splits is not None and all(map(is_prepared, splits.column_names.values())):
        loaded = _find_tokenizer(tokenizer, Path(path) / "tokenizer")
    else:
        loaded = _find_tokenizer(tokenizer)
        config = _configure(stage, [{path: 1.0}], max_length=max_length)
        splits = open_streams(config, loaded)
    if split not in splits:
        raise UserError(
            f"--split {split}: {path} holds {', '.join(splits)}; a test split is made by small-doge data prepare --test-size"
        )
    shown = splits[split]
    console.print(LEGEND, style="dim")
    for number, row in enumerate(islice((r for r in shown if source in (None, r["source"])), rows)):
        console.rule(f"row {number} of {row['source']}")
        for segments in split_segments(row, loaded):
            text = Text()
            for segment in segments:
                text.append(segment.text, style=STYLES[segment.kind])
            console.print(text, soft_wrap=True)
            console.print()


@app.command("stats")
def stats(
    path: Annotated[Path, typer.Argument(help="Prepared folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Path of the picture; in the folder if not set.")] = None,
) -> None:
    """Count rows, documents and tokens by source, and draw the lengths of documents."""
    require_extra("small-doge data", "data")
    quiet_libraries()
    if as_json:
        typer.echo(json.dumps(_statistics_of(path)))
    else:
        show_statistics(path, picture)


@app.command("clean")
def clean(
    names: Annotated[list[str], typer.Argument(help="Data sets to clean.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the cleaned data set.")],
    filters: Annotated[
        str | None,
        typer.Option(help=f"Filters to apply, separated by commas: {', '.join(FILTERS)}. All that apply if not set."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Evaluation set whose texts must not be in the data; repeat for several.")
    ] = None,
    text_field: Annotated[str | None, typer.Option(help="Field that holds the text.")] = None,
    min_words: Annotated[int, typer.Option(help="Drop texts with fewer words.")] = 10,
    max_words: Annotated[int, typer.Option(help="Drop texts with more words.")] = 100_000,
    executor: Annotated[str, typer.Option(help="Executor of datatrove: local, slurm or ray.")] = "local",
    workers: Annotated[int, typer.Option(help="Number of tasks that run at once; -1 for no limit.")] = -1,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    time: Annotated[str, typer.Option(help="Time limit of a Slurm task.")] = "20:00:00",
    environment: Annotated[str | None, typer.Option(help="Shell command that a Slurm task runs first.")] = None,
) -> None:
    """Drop texts of low quality and duplicates, and store the reason for each. Needs the extra `scale`."""
    require_extra("small-doge data clean", "scale")
    from ..processor.clean import Cleaning
    from ..processor.clean import clean as clean_sources
    from ..processor.scale import Cluster

    quiet_libraries()
    chosen = filters.split(",") if filters else [name for name in FILTERS if against or name != "evaluation_overlap"]
    cleaning = Cleaning(tuple(chosen), text_field, min_words, max_words, tuple(against or ()))
    report = clean_sources(
        names, output, cleaning, Cluster(executor, workers, partition, time, environment=environment)
    )
    if report is None:
        console.print("Tasks are on their way. Run the same command again when they are done.")
        return
    rows = (
        (name, reason, f"{count:,}")
        for name, reasons in report.dropped.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1]) or [("", 0)]
    )
    show_table(console, ("Filter", "Reason", "Dropped"), rows, prose=("Reason",))
    console.print(
        f"{report.kept:,} of {report.rows:,} rows kept in {output}; the others, with reasons, in {output}/dropped"
    )


def _find_tokenizer(name: str | None, beside: Path | None = None) -> "PreTrainedTokenizerBase":
    """Return the tokenizer that is named, that lies beside the data, or the demo's.

    Raises:
        UserError: there is none.
    """
    if name is None and beside is not None and beside.is_dir():
        name = str(beside)
    return load_tokenizer(resolve_model(name), "--tokenizer")


def parse_shares(data: list[str]) -> list[dict[str, float]]:
    """Parse NAME=RATIO entries, or names alone, which get equal shares.

    Raises:
        ValueError: a ratio that is no number, or ratios for some names only.
    """
    shares: list[dict[str, float]] = []
    for entry in data:
        name, equals, ratio = entry.rpartition("=")
        if not equals:
            shares.append({entry: 1 / len(data)})
            continue
        try:
            shares.append({name: float(ratio)})
        except ValueError:
            raise UserError(f"--data {entry}: {ratio!r} is not a ratio; write NAME=0.5") from None
    if len({"=" in entry for entry in data}) > 1:
        raise UserError("--data: give a ratio for every name, or for none")
    return shares


def _configure(stage: str, shares: list[dict[str, float]], **settings: Any) -> DataConfig:
    """Return the configuration of a stage's rows, with the settings that were given."""
    found = find_stage(stage)
    if found.row_format != "text" and settings.get("apply_chat_template") is False:
        raise UserError(f"--no-chat-turns: stage {stage} trains on conversations as the chat template renders them")
    return DataConfig(shares, found.row_format, **{**found.data_defaults, **settings})


def _check_sources(sources: Sequence[str], output: Path, overwrite: bool) -> None:
    """Refuse a source and an output of which one lies in the other: the next preparation would read what this one wrote."""
    from ..processor.prepare import PREPARED_BY

    check_output(output, PREPARED_BY, overwrite, sources)
    for name in sources:
        if Path(name).is_dir() and Path(name).resolve() in output.resolve().parents:
            raise UserError(f"output {output} lies in {name}, which is read to make it; name a folder outside of it")


def show_statistics(path: Path, picture: Path | None = None) -> None:
    """Show a table of the training split, and draw a picture."""
    from ..processor.inspection import plot_statistics
    from ..processor.prepare import REPORT
    from ..processor.report import FAILED

    statistics = _statistics_of(path)
    rows = []
    for name, facts in statistics["sources"].items():
        learnt = f"{100 * facts['learnt'] / max(1, facts['tokens']):.0f}%" if facts["learnt"] else ""
        rows.append((name, f"{facts['rows']:,}", f"{facts['documents']:,}", f"{facts['tokens']:,}", learnt))
    show_table(console, ("Source", "Rows", "Documents", "Tokens", "Learnt"), rows, prose=("Source",))
    for name in ("rows", "documents", "tokens", "longest row", "fill rate", "document lengths (0, 10, 50, 90, 100%)"):
        console.print(f"{name}: {statistics[name]}", highlight=False)
    report = path / REPORT
    if report.is_file():
        for name, facts in json.loads(report.read_text(encoding="utf-8"))["sources"].items():
            told = {k: facts[k] for k in ("failed", "skipped", "cut", "held_out", "unlearnt") if facts.get(k)}
            if told:
                console.print(f"{name}: " + ", ".join(f"{v:,} {k.replace('_', ' ')}" for k, v in told.items()))
    if (path / FAILED).is_file():
        console.print(f"rows that could not be used: {path / FAILED}", soft_wrap=True)
    if picture or not (path / PICTURE).is_file():  # that of the folder was drawn when it was prepared
        plot_statistics(statistics, picture or path / PICTURE, path.name)
    picture = picture or path / PICTURE
    console.print(f"picture: {picture}", soft_wrap=True)


def _statistics_of(path: Path) -> dict[str, Any]:
    from ..processor.inspection import compute_statistics
    from ..processor.prepared import load_prepared

    splits = load_prepared(path)
    if splits is None:
        raise UserError(f"{path} is not a prepared data set; make one with: small-doge data prepare")
    return compute_statistics(splits["train"])
