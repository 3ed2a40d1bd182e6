"""`small-doge upcycle`."""

from pathlib import Path
from typing import Annotated

import typer

from ..utils.files import OVERWRITE_HELP, check_output, whole_folder
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model


MADE_BY = "small-doge upcycle"


def upcycle(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the new model.")],
    model: Annotated[str | None, typer.Argument(help="Dense model; the demo's newest stage if not set.")] = None,
    num_experts: Annotated[int, typer.Option(help="Number of experts per layer, a square number.")] = 1024,
    num_experts_per_tok: Annotated[int, typer.Option(help="Number of experts that each token uses.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the new weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Add experts to a dense model; its outputs stay the same until you train it further."""
    from ..inference.checkpoints import open_checkpoint
    from ..models import upcycle_to_moe

    quiet_libraries()
    name = resolve_model(model)
    check_output(output, MADE_BY, overwrite, [name])
    dense, tokenizer = open_checkpoint(name)
    grown = upcycle_to_moe(dense, num_experts, num_experts_per_tok, seed=seed)
    with whole_folder(output, MADE_BY, overwrite) as folder:
        grown.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    typer.echo(f"{output}: {grown.num_parameters():,} parameters, {dense.num_parameters():,} before")
