"""`small-doge export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..inference.choices import MAX_CACHE_INCREASE, MAX_PERPLEXITY_INCREASE
from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import OVERWRITE_HELP, check_output
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from .options import Quantize
from .tables import show_table


console = Console()


class Format(StrEnum):
    """Formats of an export."""

    onnx = "onnx"
    hf = "hf"


class KVCacheDtype(StrEnum):
    """Numbers in which an onnx export keeps keys and values."""

    float32 = "float32"
    int8 = "int8"


def _refuse_max_loss(value: str | None) -> None:
    """Name the option that took the place of `--max-loss`."""
    if value is not None:
        raise UserError(f"--max-loss is now called --max-perplexity-increase: --max-perplexity-increase {value}")


def _list_limits() -> str:
    """List the largest perplexity increase of each weight format."""
    return ", ".join(f"{limit} for {name}" for name, limit in MAX_PERPLEXITY_INCREASE.items())


def export_model(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint folder or hub name; the demo's newest stage if not set.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; a new one beside the checkpoint if not set."),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="Format to write: onnx for ONNX Runtime, hf for transformers.")
    ] = Format.onnx,
    quantize: Annotated[
        Quantize,
        typer.Option(
            help="Weights of an onnx export: float32 (none), or quantized in blocks to 8 bits (int8) or 4 bits (int4)."
        ),
    ] = Quantize.int8,
    kv_cache_dtype: Annotated[
        KVCacheDtype,
        typer.Option(
            help="Numbers in which an onnx export keeps keys and values. int8 takes a quarter of the memory and decodes "
            "faster after long texts, but prompts take longer. The card tells what quality it costs."
        ),
    ] = KVCacheDtype.float32,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Maximum number of tokens, prompt and answer together, that an onnx export accepts. If not set, there "
            "is no limit, except for a model with dynamic RoPE: it is exported for the length it was trained on.",
        ),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            help="Held-out texts to measure the perplexity of an onnx export on: a file, a folder or another source of "
            "data. If not set, texts of the embedded corpus that no training uses."
        ),
    ] = None,
    max_perplexity_increase: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Refuse an onnx export whose perplexity on held-out texts is higher than the checkpoint's by more than "
            f"this fraction; 0.02 allows 2%. If not set: {_list_limits()}; {MAX_CACHE_INCREASE} more for an int8 cache.",
        ),
    ] = None,
    max_loss: Annotated[str | None, typer.Option(hidden=True, callback=_refuse_max_loss)] = None,
    merge_lora: Annotated[
        bool, typer.Option("--merge-lora", help="Merge the LoRA adapter in CHECKPOINT into its base model first.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Export a model as one portable folder, checked against PyTorch, with a card of its quality and speed."""
    if format is Format.onnx:
        require_extra("small-doge export", "export")
    if texts:
        require_extra("--texts", "data")
    from ..inference.checkpoints import open_checkpoint
    from ..inference.export import MADE_BY, export_hf, export_onnx

    quiet_libraries()
    name = resolve_model(checkpoint)
    label = format.value if format is Format.hf or quantize is Quantize.none else quantize.value
    label += "" if kv_cache_dtype is KVCacheDtype.float32 else f"-kv-{kv_cache_dtype.value}"
    output = output or Path(f"{name.rstrip('/')}-{label}")
    check_output(output, MADE_BY, overwrite, [name])
    model, tokenizer = open_checkpoint(name, merge_lora)
    title = str(output)
    if format is Format.hf:
        is_set = (quantize is not Quantize.int8, kv_cache_dtype is not KVCacheDtype.float32, max_length, texts)
        if any(is_set) or max_perplexity_increase is not None:
            raise UserError(
                "--quantize, --kv-cache-dtype, --max-length, --texts and --max-perplexity-increase are for --format onnx"
            )
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
                kv_cache_dtype=kv_cache_dtype.value,
            )
    show_table(console, ("Fact", "Value"), ((key, str(value)) for key, value in facts.items()), title, ("Value",))
    use = "small-doge chat" if getattr(tokenizer, "chat_template", None) else "small-doge generate"
    console.print(f"Use it: {use} {output}", soft_wrap=True, highlight=False)


def _read_texts(name: str) -> list[str]:
    """Read the `text` of each row of a file, folder or other source.

    Raises:
        UserError: no row has a text.
    """
    from ..processor.sources import open_source

    source = open_source(name, all_splits=True)
    rows = (record.row for file_range in source.ranges for record in source.read(file_range))
    texts = [row["text"] for row in rows if row and isinstance(row.get("text"), str)]
    if not texts:
        raise UserError(f"--texts {name} has no row with a text")
    return texts
