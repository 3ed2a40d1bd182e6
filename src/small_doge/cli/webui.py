"""`small-doge webui`: the page without a server."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..utils.extras import require_extra
from ..utils.files import OVERWRITE_HELP
from ..utils.logging import quiet_libraries
from .export import Quantize


app = typer.Typer(help="Export the chat page as static files that run a model in the browser.", no_args_is_help=True)
console = Console(highlight=False, soft_wrap=True)
PORT = 8000


@app.callback()
def _group() -> None:
    """Keep `export` a command of its own although it is the only one."""


@app.command("export")
def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Exported folders, or checkpoint folders or hub names, which are exported first."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    quantize: Annotated[
        Quantize | None,
        typer.Option(
            help="Weights of a checkpoint's export; none if not set. In a browser none is the fastest, and int8 and int4 are "
            "smaller to fetch."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Write the page and models as a static folder, which any file server can serve."""
    require_extra("small-doge webui export", "export")
    from ..webui.page_export import describe_size, export_page

    quiet_libraries()
    sizes = export_page(models, output, quantize and quantize.value, overwrite, console.print)
    written = describe_size(output)
    console.print(f"{output}: {written['files']} files, {written['bytes'] / 1e6:.1f} MB", markup=False)
    for name, size in sizes.items():
        console.print(f"  {name}: {size / 1e6:.1f} MB", markup=False)
    serve = ["python", "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", str(output)]
    console.print(f"Serve it: {shlex.join(serve)}", markup=False)
    console.print(f"Then open http://127.0.0.1:{PORT}/ (for a phone, {output / 'README.md'} says how)", markup=False)
