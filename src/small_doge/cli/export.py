"""`small-doge export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..inference.checkpoints import open_checkpoint
from ..inference.export import MADE_BY, export_hf, export_onnx
from ..inference.export_checks import MAX_PERPLEXITY_INCREASE
from ..processor.sources import open_source
from ..utils.errors import UserError
from ..utils.files import OVERWRITE_HELP, check_output
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from .tables import show_table


console = Console()


class Format(StrEnum):
    """What is written."""

    onnx = "onnx"
    hf = "hf"


class Quantize(StrEnum):
    """Bits of the weights."""

    none = "none"
    int8 = "int8"
    int4 = "int4"


def _refuse_max_loss(value: str | None) -> None:
    """Name the option that took the place of `--max-loss`."""
    if value is not None:
        raise UserError(f"--max-loss is now called --max-perplexity-increase: --max-perplexity-increase {value}")


def export_model(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Model folder or hub name; the demo's newest stage if none.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; beside the checkpoint if none.")
    ] = None,
    format: Annotated[Format, typer.Option(help="onnx for ONNX Runtime, hf for transformers.")] = Format.onnx,
    quantize: Annotated[
        Quantize, typer.Option(help="Weights of an onnx export: float32, or blocks of 8 or 4 bits.")
    ] = Quantize.int8,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2, help="Longest text of an onnx export, for which a dynamic RoPE is fixed; the trained one."
        ),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(help="Held-out texts to measure the loss of quality on; of the embedded corpus if none."),
    ] = None,
    max_perplexity_increase: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Increase of the perplexity beyond which the export is refused, as a share "
            f"({', '.join(f'{name} {loss}' for name, loss in MAX_PERPLEXITY_INCREASE.items())}).",
        ),
    ] = None,
    max_loss: Annotated[str | None, typer.Option(hidden=True, callback=_refuse_max_loss)] = None,
    merge_lora: Annotated[bool, typer.Option("--merge-lora", help="CHECKPOINT is a LoRA adapter: merge it.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Write a model as one portable folder, checked against PyTorch, with a card of its speed and loss of quality."""
    quiet_libraries()
    name = resolve_model(checkpoint)
    label = format.value if format is Format.hf or quantize is Quantize.none else quantize.value
    output = output or Path(f"{name.rstrip('/')}-{label}")
    check_output(output, MADE_BY, overwrite, [name])
    model, tokenizer = open_checkpoint(name, merge_lora)
    title = str(output)
    if format is Format.hf:
        if quantize is not Quantize.int8 or max_length or texts or max_perplexity_increase is not None:
            raise UserError("--quantize, --max-length, --texts and --max-perplexity-increase are for --format onnx")
        facts = export_hf(model, tokenizer, output, title, overwrite)
    else:
        with console.status("Building the graph and comparing it with PyTorch"):
            rows = _read_texts(texts) if texts else None
            facts = export_onnx(
                model,
                tokenizer,
                output,
                quantize.value,
                max_length,
                rows,
                max_perplexity_increase=max_perplexity_increase,
                name=title,
                overwrite=overwrite,
            )
    show_table(console, ("Fact", "Value"), ((key, str(value)) for key, value in facts.items()), title, ("Value",))
    use = "small-doge chat" if getattr(tokenizer, "chat_template", None) else "small-doge generate"
    console.print(f"Use it: {use} {output}", soft_wrap=True, highlight=False)


def _read_texts(name: str) -> list[str]:
    """The `text` of each row of a file, folder or other source.

    Raises:
        UserError: there is none.
    """
    source = open_source(name, all_splits=True)
    rows = (record.row for part in source.parts for record in source.read(part))
    texts = [row["text"] for row in rows if row and isinstance(row.get("text"), str)]
    if not texts:
        raise UserError(f"--texts {name} has no row with a text")
    return texts
