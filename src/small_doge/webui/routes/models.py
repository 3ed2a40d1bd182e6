"""Models of the server: list, load, unload, status, under `/api/v1/models`."""

from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from ..errors import ApiError
from ..state import ServerState


def make_models_api_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/models", tags=["Models"])

    @router.get("")
    async def list_models() -> dict[str, Any]:
        """List the models, loaded or not."""
        return {"models": await state.control.list_models()}

    @router.get("/{name:path}/status")
    async def get_status(name: str) -> dict[str, Any]:
        """Tell whether a model is loaded, and what it needs."""
        statuses = await state.control.list_models()  # before `find`: it leaves out what was removed
        entry = await run_in_threadpool(state.registry.find, name)
        status = next((status for status in statuses if status["name"] == entry.name), None)
        if status is None:
            raise ApiError(404, f"model {name!r} has come just now; ask again", "model", "model_not_found")
        return status

    @router.post("/{name:path}/load")
    async def load_model(name: str) -> dict[str, Any]:
        """Load a model, and wait until it is loaded."""
        return await state.control.load(name)

    @router.post("/{name:path}/unload")
    async def unload_model(name: str) -> dict[str, Any]:
        """Free the memory of a model that no request uses."""
        return await state.control.unload(name)

    return router
