"""Presets of the page: /api/v1/presets."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel

from ..errors import ApiError
from ..preset_forms import PresetChange, PresetView, check_name
from ..preset_store import MissingPresetError, PresetStore
from .bodies import IGNORED_HEADER, list_names
from .chats import StoreRoute


PresetName = Annotated[str, Path(description="Name of a preset.", max_length=300)]


class Presets(BaseModel):
    """All presets."""

    presets: list[PresetView]


def make_presets_router(store: PresetStore) -> APIRouter:
    """Build the routes, which are no coroutines, like those of conversations."""
    router = APIRouter(prefix="/api/v1/presets", tags=["Presets"], route_class=StoreRoute)

    @router.get("")
    def list_presets() -> Presets:
        """List the presets by name."""
        return Presets(presets=store.list_presets())

    @router.put("/{name:path}")
    def save_preset(response: Response, name: PresetName, change: Annotated[PresetChange, Body()]) -> PresetView:
        """Keep a preset, in the place of one of the same name."""
        try:
            check_name(name)
        except ValueError as error:
            raise ApiError(400, str(error), "name", "invalid_request") from error
        preset, is_new = store.save_preset(name, change)
        response.status_code = 201 if is_new else 200
        ignored = list_names(change.list_ignored())
        if ignored:
            response.headers[IGNORED_HEADER] = ignored
        return preset

    @router.delete("/{name:path}", status_code=204)
    def delete_preset(name: PresetName) -> None:
        """Delete a preset."""
        try:
            store.delete_preset(name)
        except MissingPresetError as error:
            raise ApiError(404, str(error), code="not_found") from error

    return router
