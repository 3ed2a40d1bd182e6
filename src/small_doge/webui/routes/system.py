"""`/health` and `/metrics`."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from ..state import ServerState


def make_system_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["Server"])

    @router.get("/health")
    async def get_health() -> dict[str, Any]:
        """Tell that the server is alive."""
        return {"status": "ok", "version": version("small-doge")}

    @router.get("/metrics")
    async def get_metrics() -> Response:
        """Return what was counted, in the form that Prometheus reads."""
        return Response(await state.control.render_metrics(), media_type=CONTENT_TYPE_LATEST)

    return router
