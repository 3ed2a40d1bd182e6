"""`small-doge serve`, and `small-doge-webui`, which the guides call it."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..inference.sampling_options import SamplingOptions
from ..utils.errors import UserError, told_errors
from ..utils.extras import require_extra
from ..utils.logging import quiet_libraries
from ..utils.paths import DEMO_DIR, resolve_model
from ..webui.settings import ServeSettings, make_address, read_environment, read_settings_file
from . import options
from .field_options import with_field_options


CONFIG = Path("serve.yaml")
OFFERED = [field.name for field in fields(ServeSettings) if field.name not in ("models", "sampling")]
SAMPLING = [name for name in options.SAMPLING if name != "max_new_tokens"]
FRONTEND_PORT = 7860  # of the guides' page
HostAlias = Annotated[str | None, typer.Option(hidden=True)]
PortAlias = Annotated[int | None, typer.Option(hidden=True, min=0, max=65535)]


@with_field_options(SamplingOptions, SAMPLING, "sampling")
@with_field_options(ServeSettings, OFFERED, "given")
def serve(
    *,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Exported folders, checkpoint folders or hub names, NAME=FOLDER to choose a name; all stages of the demo, "
            "the newest first, if not set.",
        ),
    ] = None,
    given: dict[str, Any],
    sampling: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help=f"YAML file of settings; {CONFIG} in the present folder, if there is one.")
    ] = None,
    backend_host: HostAlias = None,
    backend_port: PortAlias = None,
    frontend_host: HostAlias = None,
    frontend_port: PortAlias = None,
    dev: Annotated[bool, typer.Option("--dev", hidden=True)] = False,
) -> None:
    """Serve models over the OpenAI, Anthropic and Ollama APIs, with a page to chat in."""
    require_extra("small-doge serve", "serve")
    from ..webui.serving import run_server

    quiet_libraries()
    console = Console(stderr=True, highlight=False)
    settings: dict[str, Any] = read_environment()
    config = config or (CONFIG if CONFIG.is_file() else None)
    if config is not None:
        settings = {**read_settings_file(config), **settings}
    settings.update(given)
    if sampling:  # what is not given here stays as the file has it
        settings["sampling"] = SamplingOptions.from_names(sampling, settings.get("sampling"))
    extra_ports = _apply_aliases(settings, backend_host, backend_port, frontend_host, frontend_port, dev)
    if models:
        settings["models"] = tuple(models)
    if not settings.get("page_only"):
        _choose_models(settings)
    checked = ServeSettings(**settings)
    run_server(checked, lambda text: console.print(text, soft_wrap=True, markup=False), extra_ports)


def _apply_aliases(
    settings: dict[str, Any],
    backend_host: str | None,
    backend_port: int | None,
    frontend_host: str | None,
    frontend_port: int | None,
    dev: bool,
) -> list[int]:
    """Read the options of the guides' server, which ran its API and its page as two processes.

    Returns:
        Further ports to listen on: here, one process serves both, on either port.
    """
    if dev:
        settings["debug"] = True
    host = backend_host or settings.get("host", "127.0.0.1")
    port = settings.get("port", 8000) if backend_port is None else backend_port
    page_port = FRONTEND_PORT if frontend_port is None else frontend_port
    if settings.get("page_only"):
        if "backend" not in settings:  # then host and port are those of the server
            settings.update(backend=make_address(host, port), host="127.0.0.1", port=page_port)
        settings["host"] = frontend_host or settings.get("host", "127.0.0.1")
        settings["port"] = settings.get("port", page_port) if frontend_port is None else frontend_port
        return []
    settings.update(host=host, port=port)
    if settings.get("no_page"):  # the page of the other process calls this one
        page = make_address(frontend_host or "127.0.0.1", page_port)
        settings.setdefault("cors_origins", [page, page.replace("127.0.0.1", "localhost")])
        return []
    if frontend_host not in (None, host, "localhost"):
        raise UserError(
            f"--frontend-host {frontend_host} differs from the server's address {host}; one process serves both: set --host"
        )
    return [] if frontend_port is None else [frontend_port]


def _choose_models(settings: dict[str, Any]) -> None:
    """Offer the demo's stages, the newest first, where no model is named."""
    if not settings.get("models") and not settings.get("models_dir"):
        settings["models"] = (resolve_model(None),)
        settings["models_dir"] = str(DEMO_DIR)


def main() -> None:
    """Run `small-doge-webui`."""
    with told_errors("small-doge-webui", lambda message: typer.secho(f"Error: {message}", fg="red", err=True)):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(serve)
        app()
