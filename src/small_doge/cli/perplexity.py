"""`small-doge eval perplexity`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..evaluation.choices import ATTENTIONS, ROW_FORMATS
from ..utils.extras import require_extra
from ..utils.files import check_output_path
from ..utils.logging import quiet_libraries
from . import options
from .field_options import with_field_options
from .tables import show_table


console = Console(highlight=False)
FOLDER = "perplexity"


@dataclass(frozen=True)
class TextOptions:
    """Which tokens are scored, and how they are read; each field's metadata has its help."""

    context: int | None = field(
        default=None,
        metadata={"help": "Maximum number of tokens in a window; the trained length if not set.", "min": 1},
    )
    stride: int | None = field(
        default=None,
        metadata={
            "help": "Number of new tokens in each further window of a long text; the context if not set.",
            "min": 1,
        },
    )
    joined: bool = field(
        default=False,
        metadata={"help": "Join all documents into one text.", "option": "--joined"},
    )
    attention: str | None = field(
        default=None,
        metadata={
            "help": f"Kinds of attention to measure with the same weights, separated by commas: {', '.join(ATTENTIONS)}. If "
            "not set: all if a checkpoint's window is shorter than the context, otherwise only its own."
        },
    )
    row_format: str = field(
        default="auto",
        metadata={
            "help": f"Content of the rows: {', '.join(ROW_FORMATS)}. In conversations, only the answers are scored."
        },
    )
    text_field: str | None = field(
        default=None, metadata={"help": "Field that holds the text of a row; text if not set."}
    )
    max_tokens: int | None = field(
        default=None, metadata={"help": "Number of tokens to score; all if not set.", "min": 1}
    )

    @property
    def attentions(self) -> list[str] | None:
        """List the attentions that were named; None if none were."""
        return [name.strip() for name in self.attention.split(",") if name.strip()] if self.attention else None


def _build(given: dict[str, Any]) -> TextOptions:
    return TextOptions(**given)


@with_field_options(TextOptions, [one.name for one in fields(TextOptions)], "how", _build)
def measure_texts(
    model: Annotated[str, typer.Argument(help="Exported folder, checkpoint folder or hub name.")],
    files: Annotated[
        list[str], typer.Argument(help="Text or JSON lines files, folders, prepared data, or data sets.")
    ],
    how: TextOptions = TextOptions(),
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help=f"Folder for the figures; MODEL/{FOLDER} if not set.")
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Measure perplexity and bits per byte of texts or answers, by position and compared with other kinds of attention.

    An interrupted run continues after the last attention that was measured completely.
    """
    require_extra("small-doge eval perplexity", "data")
    from ..evaluation.perplexity import plan_reading
    from ..evaluation.perplexity_results import measure_documents, read_documents
    from ..evaluation.scored_documents import DocumentReader
    from ..inference import open_engine

    quiet_libraries()
    folder = output_dir or (Path(model) if Path(model).is_dir() else Path()) / FOLDER
    check_output_path(folder)
    engine = open_engine(model, num_slots=1, threads=threads)
    reading = plan_reading(engine, how.context, how.stride, how.joined, how.attentions)
    reader = DocumentReader(engine.tokenizer, how.row_format, how.text_field)
    with console.status("reading"):
        documents = read_documents(reader, files, how.max_tokens)
    facts = {
        "files": files,
        "row_format": how.row_format,
        "max_tokens": how.max_tokens,
        "failed": dict(reader.failed),
    }
    result = measure_documents(engine, model, documents, reading, facts, folder)
    engine.close()
    _show(result)
    console.print(f"Written: {folder}/perplexity.json, .md, .png", soft_wrap=True)


def _show(result: dict[str, Any]) -> None:
    """Print the tables, and how their figures were measured."""
    from ..evaluation.perplexity_tables import (
        HEAD,
        SOURCE_HEAD,
        list_attention_cells,
        list_facts,
        list_position_cells,
        list_source_cells,
    )

    show_table(console, HEAD, list_attention_cells(result), title=result["model"])
    show_table(console, *list_position_cells(result))
    if len(result["sources"]) > 1:
        show_table(console, SOURCE_HEAD, list_source_cells(result))
    for fact in list_facts(result):
        console.print(fact, style="dim", soft_wrap=True)
