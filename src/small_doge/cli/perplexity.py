"""`small-doge eval perplexity`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..evaluation.choices import ATTENTIONS, ROW_FORMATS
from ..utils.errors import UserError
from ..utils.files import check_output_path, write_json, write_text
from ..utils.logging import quiet_libraries
from . import options
from .tables import show_table


console = Console(highlight=False)
FOLDER = "perplexity"


def measure_texts(
    model: Annotated[str, typer.Argument(help="Exported folder, checkpoint folder or hub name.")],
    files: Annotated[
        list[str], typer.Argument(help="Texts, JSON lines, either packed or not; folders, prepared data, data sets.")
    ],
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens read at once, at most; the trained length if not set.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens that each further window of a long text adds; the context if not set."),
    ] = None,
    joined: Annotated[
        bool, typer.Option("--joined", help="Read all documents as one text, in place of each by itself.")
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option(
            help=f"Attentions to measure by the same weights, separated by commas: {', '.join(ATTENTIONS)}. If not set, all "
            "for a checkpoint whose window is shorter than the context, else its own."
        ),
    ] = None,
    row_format: Annotated[
        str,
        typer.Option(help=f"What rows hold: {', '.join(ROW_FORMATS)}. Of a conversation, answers alone are scored."),
    ] = "auto",
    text_field: Annotated[
        str | None, typer.Option(help="Field that holds the text of a row; text if not set.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens to score, from the first on; all if not set.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help=f"Folder for the figures; MODEL/{FOLDER} if not set.")
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Measure perplexity and bits per byte of texts or answers, by position and beside other attentions.

    A run that was stopped goes on after the last attention that was measured whole.
    """
    from tqdm import tqdm

    from ..evaluation.perplexity import discard_kept, measure_perplexity, name_kept, plan_reading
    from ..evaluation.perplexity_tables import (
        HEAD,
        SOURCE_HEAD,
        list_attention_cells,
        list_facts,
        list_position_cells,
        list_source_cells,
        plot_positions,
        write_markdown,
    )
    from ..evaluation.provenance import find_commit, hash_model
    from ..evaluation.scored_documents import DocumentReader, take_tokens
    from ..inference import open_engine
    from ..utils.hardware import describe_device

    quiet_libraries()
    folder = output_dir or (Path(model) if Path(model).is_dir() else Path()) / FOLDER
    check_output_path(folder)
    engine = open_engine(model, num_slots=1, threads=threads)
    names = [name.strip() for name in attention.split(",") if name.strip()] if attention else None
    reading = plan_reading(engine, context, stride, joined, names)
    reader = DocumentReader(engine.tokenizer, row_format, text_field)
    with console.status("reading"):
        documents = list(take_tokens((document for name in files for document in reader.read(name)), max_tokens))
    if not documents:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in reader.failed.items()) or "they are empty"
        raise UserError(f"{', '.join(files)}: nothing to score ({reasons})")
    total = sum(int(document.scored.sum()) for document in documents) * len(reading.attentions)
    digest, start = hash_model(model), time.perf_counter()
    kept = name_kept(folder, digest, documents, reading)
    with tqdm(total=total, unit=" tokens", unit_scale=True, desc="scoring", dynamic_ncols=True, mininterval=1) as bar:
        found = measure_perplexity(engine, documents, reading, bar.update, kept)
    result = {
        "model": model,
        "model_hash": digest,
        "files": files,
        "context": reading.context,
        "stride": reading.stride,
        "joined": joined,
        "row_format": row_format,
        "max_tokens": max_tokens,
        "trained_length": engine.trained_length,
        "keep_window_size": engine.backend.keep_window_size,
        **found,
        "failed": dict(reader.failed),
        "commit": find_commit(),
        "machine": describe_device(),
        "seconds": time.perf_counter() - start,
    }
    engine.close()
    write_json(folder / "perplexity.json", result)
    discard_kept(kept)
    plot_positions(result, folder / "perplexity.png")
    write_text(folder / "perplexity.md", write_markdown(result, "perplexity.png"))
    show_table(console, HEAD, list_attention_cells(result), title=model)
    show_table(console, *list_position_cells(result))
    if len(result["sources"]) > 1:
        show_table(console, SOURCE_HEAD, list_source_cells(result))
    for fact in list_facts(result):
        console.print(fact, style="dim", soft_wrap=True)
    console.print(f"Written: {folder}/perplexity.json, .md, .png", soft_wrap=True)
