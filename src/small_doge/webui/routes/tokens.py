"""Tokens of texts and conversations: `/tokenize`, `/detokenize`, `/apply-template`."""

from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict
from starlette.concurrency import run_in_threadpool

from ..errors import ApiError, to_json
from ..model_entry import ModelEntry
from ..state import ServerState
from ..streaming import respond
from ..tool_prompts import fit_template
from .bodies import Body
from .messages import read_messages


class ModelBody(Body):
    """A request that names a model."""

    model: str | None = None


class TokenizeBody(ModelBody):
    """A text or a conversation to tokenize."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "Ada lives in Paris."}]})

    content: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True


class DetokenizeBody(ModelBody):
    """Token ids to turn into text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tokens": [5, 6]}]})

    tokens: list[int]


class TemplateBody(ModelBody):
    """A conversation to write by the chat template."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "Hello"}]}]})

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True


def make_tokens_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["Tokens"])

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> Response:
        """Tokenize a text or a conversation."""
        with await state.registry.acquire(body.model) as entry:
            return await run_in_threadpool(_tokenize, entry, body)

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> Response:
        """Return the text of token ids, special tokens by name."""
        with await state.registry.acquire(body.model) as entry:
            return respond({"content": await run_in_threadpool(entry.engine.decode, body.tokens)}, body.check_fields())

    @router.post("/apply-template")
    async def apply_template(body: TemplateBody) -> Response:
        """Return the text that the chat template makes of a conversation."""
        with await state.registry.acquire(body.model) as entry:
            return respond({"prompt": await run_in_threadpool(_apply_template, entry, body)}, body.check_fields())

    return router


def _apply_template(entry: ModelEntry, body: TemplateBody) -> str:
    messages, tools = fit_template(entry.engine, read_messages(body.messages), body.tools)
    return entry.engine.render_text(messages, tools, add_generation_prompt=body.add_generation_prompt)


def _tokenize(entry: ModelEntry, body: TokenizeBody) -> Response:
    engine = entry.engine
    if (body.content is None) == (body.messages is None):
        raise ApiError(400, "send either content, which is a text, or messages", "content")
    if body.messages is not None:
        messages, tools = fit_template(engine, read_messages(body.messages), body.tools)
        ids = engine.render(messages, tools, add_generation_prompt=body.add_generation_prompt)
    else:
        ids = engine.encode(body.content or "", add_special_tokens=body.add_special_tokens)
    # Written here, outside the event loop, and token by token: the encoder of all at once would let no other thread run.
    write = cache(lambda token_id: to_json({"id": token_id, "piece": engine.piece(token_id)}))
    tokens = ",".join([write(token_id) for token_id in ids])
    facts = to_json({"count": len(ids), "max_length": engine.backend.max_length}).removeprefix("{")
    content = f'{{"tokens":[{tokens}],{facts}'
    return Response(content, media_type="application/json", headers=body.check_fields())
