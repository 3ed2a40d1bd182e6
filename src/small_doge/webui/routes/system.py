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
        metrics = state.metrics
        for entry in state.registry.entries.values():
            metrics.memory.labels(entry.name).set(entry.count_bytes() if entry.is_loaded else 0)
            metrics.unfinished.labels(entry.name).set(entry.worker.num_unfinished if entry.is_loaded else 0)
            metrics.waiting.labels(entry.name).set(entry.worker.num_waiting if entry.is_loaded else 0)
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
