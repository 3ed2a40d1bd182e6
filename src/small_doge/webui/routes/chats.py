"""Conversations: /api/v1/chats, as the guides' server names them."""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel

from ...utils.errors import UserError
from ..chat_forms import (
    Append,
    ChatChange,
    ChatForm,
    ChatSummary,
    ChatView,
    Form,
    MessageChange,
    MessageView,
    TreeError,
    check_id,
    now,
)
from ..chat_import import EXPORT_FORMAT, EXPORT_VERSION, Import
from ..chat_markdown import write_markdown
from ..chat_store import ChatStore, ExistingChatError, MissingChatError
from ..errors import ApiError, to_json
from ..preset_forms import PresetView
from .bodies import IGNORED_HEADER, list_names


ChatId = Annotated[str, Path(description="Id of a conversation.")]
LARGEST_OFFSET = 10**9


class ChatPage(BaseModel):
    """A page of conversations."""

    chats: list[ChatSummary]
    total: int


class Imported(BaseModel):
    """What became of an import: how many are new; those whose id or name was there already stay as they are."""

    imported: int
    skipped: int
    skipped_ids: list[str]
    imported_presets: int
    skipped_presets: int


class StoreRoute(APIRoute):
    """Answers errors of the store with their status."""

    def get_route_handler(self) -> Callable:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def explain(request: Request) -> Response:
            try:
                return await handle(request)
            except MissingChatError as error:
                raise ApiError(404, str(error), code="not_found") from error
            except ExistingChatError as error:
                raise ApiError(409, str(error), "id", "already_exists") from error
            except TreeError as error:
                raise ApiError(422, str(error), error.param, "invalid_messages") from error
            except UserError as error:  # the file: locked for long, the disk full, damaged
                raise ApiError(503, str(error), code="storage_failed", headers={"Retry-After": "5"}) from error

        return explain


def make_chats_router(store: ChatStore) -> APIRouter:
    """Build the routes. They are no coroutines, so that waiting for the disk holds up no generation."""
    router = APIRouter(prefix="/api/v1/chats", tags=["Conversations"], route_class=StoreRoute)
    _add_collection(router, store)
    _add_single(router, store)
    return router


def _add_collection(router: APIRouter, store: ChatStore) -> None:
    """Add what concerns all conversations; `export` must stand before the ids."""

    @router.get("")
    def list_chats(
        search: Annotated[str, Query(max_length=200, description="Words of the title or a message.")] = "",
        folder: Annotated[str | None, Query(max_length=300, description="Empty for those in none.")] = None,
        tag: Annotated[str | None, Query(max_length=300)] = None,
        archived: Annotated[bool | None, Query(description="All of them if not given.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        offset: Annotated[int, Query(ge=0, le=LARGEST_OFFSET)] = 0,
    ) -> ChatPage:
        """List conversations: pinned ones first, then the newest."""
        chats, total = store.list_chats(search, folder, tag, archived, limit, offset)
        return ChatPage(chats=chats, total=total)

    @router.post("", status_code=201)
    def create_chat(response: Response, form: Annotated[ChatForm, Body()]) -> ChatView:
        """Create a conversation, whole or empty."""
        _tell_ignored(response, form)
        return store.create_chat(form)

    @router.get("/export")
    def export_chats() -> StreamingResponse:
        """Export all conversations and presets as JSON, which an import takes."""
        return StreamingResponse(
            _write_export(store.iterate_export()),
            media_type="application/json",
            headers={"Content-Disposition": 'attachment; filename="small-doge-chats.json"'},
        )

    @router.post("/import")
    def import_chats(response: Response, form: Annotated[Import, Body()]) -> Imported:
        """Import conversations and presets, all or none; those whose id or name is there already are skipped."""
        _tell_ignored(response, form)
        imported, skipped, presets = store.import_chats(form.chats, form.presets)
        return Imported(
            imported=imported,
            skipped=len(skipped),
            skipped_ids=skipped,
            imported_presets=presets,
            skipped_presets=len(form.presets) - presets,
        )


def _add_single(router: APIRouter, store: ChatStore) -> None:
    """Add what concerns one conversation."""

    @router.get("/{chat_id}")
    def read_chat(chat_id: ChatId) -> ChatView:
        """Return a conversation."""
        return store.read_chat(_check(chat_id))

    @router.put("/{chat_id}")
    def change_chat(response: Response, chat_id: ChatId, change: Annotated[ChatChange, Body()]) -> ChatView:
        """Change the fields that are sent; `messages` replaces all of them."""
        _tell_ignored(response, change)
        return store.change_chat(_check(chat_id), change)

    @router.delete("/{chat_id}", status_code=204)
    def delete_chat(chat_id: ChatId) -> None:
        """Delete a conversation."""
        store.delete_chat(_check(chat_id))

    @router.post("/{chat_id}/messages")
    def append_messages(response: Response, chat_id: ChatId, added: Annotated[Append, Body()]) -> ChatView:
        """Add messages, and show the last of them or `current_id`."""
        _tell_ignored(response, added)
        return store.append_messages(_check(chat_id), added)

    @router.patch("/{chat_id}/messages/{message_id}")
    def change_message(
        response: Response, chat_id: ChatId, message_id: str, change: Annotated[MessageChange, Body()]
    ) -> MessageView:
        """Change content, model or stats of a message."""
        _tell_ignored(response, change)
        return store.change_message(_check(chat_id), _check(message_id), change)

    @router.get("/{chat_id}/export")
    def export_chat(chat_id: ChatId, format: Literal["json", "markdown"] = "json") -> Response:
        """Export a conversation: JSON, which an import takes, or its shown branch as Markdown."""
        chat = store.read_chat(_check(chat_id))
        if format == "json":
            content, kind, suffix = "".join(_write_export(iter([chat]))), "application/json", "json"
        else:
            content, kind, suffix = write_markdown(chat), "text/markdown; charset=utf-8", "md"
        headers = {
            "Content-Disposition": f'attachment; filename="{chat.id}.{suffix}"',
            "X-Content-Type-Options": "nosniff",
        }
        return Response(content, media_type=kind, headers=headers)


def _check(name: str) -> str:
    """Refuse what can be no id, before the database sees it."""
    try:
        return check_id(name)
    except ValueError as error:
        raise ApiError(404, str(error), code="not_found") from error


def _tell_ignored(response: Response, form: Form) -> None:
    names = list_names(form.list_ignored())
    if names:
        response.headers[IGNORED_HEADER] = names


def _write_export(parts: Iterator[ChatView | PresetView]) -> Iterator[str]:
    """Write the export piece by piece, so that a large one is never whole in memory."""
    yield f'{{"format": "{EXPORT_FORMAT}", "version": {EXPORT_VERSION}, "exported_at": "{now()}", "chats": ['
    separator, presets = "\n", []
    for part in parts:
        if isinstance(part, PresetView):  # they follow the conversations
            presets.append(part.model_dump())
        else:
            yield separator + part.model_dump_json()
            separator = ",\n"
    yield f'\n], "presets": {to_json(presets)}}}\n'
