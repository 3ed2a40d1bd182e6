"""The page: static files, and the configuration that tells it where the engine is."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from ..settings import ServeSettings
from ..streaming import respond


STATIC = Path(__file__).parents[1] / "static"


def add_page(app: FastAPI, settings: ServeSettings) -> None:
    """Serve the page at `/`, and the description of the API at `/docs`, with their files at `/static`."""
    if not settings.page_only:
        _add_file(app, "/docs", "docs.html")
    if settings.no_page:

        @app.get("/", include_in_schema=False)
        async def get_hint() -> Response:
            return respond({"message": "This server has no page (--backend-only); /docs describes its API."})

    else:
        _add_file(app, "/", "index.html")

        @app.get("/config.json", include_in_schema=False)
        async def get_config() -> Response:
            return respond(
                {"engine": "server", "base": _end_with_slash(settings.backend)}, {"Cache-Control": "no-cache"}
            )

    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def _end_with_slash(address: str | None) -> str:
    """Write an address so that paths can follow it."""
    return f"{address.rstrip('/')}/" if address else ""


def _add_file(app: FastAPI, path: str, name: str) -> None:
    """Serve one file of the page, which browsers ask for again each time."""

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def get_file() -> FileResponse:
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})
