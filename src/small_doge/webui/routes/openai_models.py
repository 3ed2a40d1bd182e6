"""`/v1/models` of the OpenAI API."""

from typing import Any

from fastapi import APIRouter

from ..registry import ModelEntry
from ..state import ServerState


def make_models_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.get("/models")
    def list_models() -> dict[str, Any]:
        """List the models; `meta` tells their sizes and limits."""
        state.registry.rescan()
        return {"object": "list", "data": [_describe(entry) for entry in state.registry.entries.values()]}

    @router.get("/models/{name:path}")
    def get_model(name: str) -> dict[str, Any]:
        """Describe a model."""
        return _describe(state.registry.find(name))

    return router


def _describe(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": "small-doge",
        "meta": entry.describe(),
    }
