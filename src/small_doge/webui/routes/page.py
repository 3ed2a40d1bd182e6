"""The page: static files, and the configuration that tells it where the engine is."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from ..settings import ServeSettings
from ..streaming import respond


STATIC = Path(__file__).parents[1] / "static"


def add_page(app: FastAPI, settings: ServeSettings) -> None:
    """Serve the page at `/`, with its files at `/static`."""

    @app.get("/", include_in_schema=False)
    async def get_page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/config.json", include_in_schema=False)
    async def get_config() -> Response:
        return respond({"engine": "server", "base": settings.backend or ""}, {"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
