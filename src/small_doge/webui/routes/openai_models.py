"""`/v1/models` of the OpenAI and the Anthropic API, whose fields stand side by side."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from ..model_entry import ModelEntry
from ..state import ServerState


def make_models_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.get("/models")
    def list_models() -> dict[str, Any]:
        """List the models; `meta` tells their sizes and limits."""
        state.registry.rescan()
        models = [_describe(entry) for entry in state.registry.entries.values()]
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        return {"object": "list", "data": models, "has_more": False, **ends}

    @router.get("/models/{name:path}/capabilities")
    def get_capabilities(name: str) -> dict[str, Any]:
        """Tell what a model can be asked for."""
        can_chat = bool(state.registry.find(name).describe()["can_chat"])
        always = ("completion", "streaming", "logprobs", "json_schema", "embeddings")
        return {"model": name, "capabilities": {"chat": can_chat, "tools": can_chat, **dict.fromkeys(always, True)}}

    @router.get("/engines")
    def list_engines() -> dict[str, Any]:
        """List the models by their older name."""
        state.registry.rescan()
        return {"object": "list", "data": [_describe_engine(entry) for entry in state.registry.entries.values()]}

    @router.get("/engines/{name:path}")
    def get_engine(name: str) -> dict[str, Any]:
        """Describe a model by its older name."""
        return _describe_engine(state.registry.find(name))

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
        "type": "model",
        "display_name": entry.name,
        "created_at": datetime.fromtimestamp(entry.created, UTC).isoformat(),
        "meta": entry.describe(),
    }


def _describe_engine(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.name, "object": "engine", "owner": "small-doge", "ready": entry.is_loaded}
