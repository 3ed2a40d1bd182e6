"""Models of the server: list, load, unload, status, under `/api/v1/models`."""

from typing import Any

from fastapi import APIRouter

from ..registry import ModelEntry
from ..state import ServerState


def make_models_api_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/models", tags=["Models"])

    @router.get("")
    def list_models() -> dict[str, Any]:
        """List the models, loaded or not."""
        state.registry.rescan()
        return {"models": [describe_status(entry) for entry in state.registry.entries.values()]}

    @router.get("/{name:path}/status")
    def get_status(name: str) -> dict[str, Any]:
        """Tell whether a model is loaded, and what it needs."""
        return describe_status(state.registry.find(name))

    @router.post("/{name:path}/load")
    async def load_model(name: str) -> dict[str, Any]:
        """Load a model, and wait until it is loaded."""
        with await state.registry.acquire(name) as entry:
            return describe_status(entry)

    @router.post("/{name:path}/unload")
    async def unload_model(name: str) -> dict[str, Any]:
        """Free the memory of a model that no request uses."""
        entry = state.registry.find(name)
        await state.registry.unload(entry)
        return describe_status(entry)

    return router


def describe_status(entry: ModelEntry) -> dict[str, Any]:
    """Describe a model and its state."""
    return {
        "id": entry.name,
        "name": entry.name,
        "status": entry.status,
        "error": entry.error,
        "memory_bytes": entry.count_bytes(),
        "num_requests": entry.num_users,
        **entry.describe(),
    }
