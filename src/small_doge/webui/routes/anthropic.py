"""`/v1/messages` of the Anthropic API."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from ...inference.tool_calls import ToolCall
from ..answer_parts import AnswerReader, Part
from ..errors import make_request_id
from ..generation import Generation, GenerationRequest
from ..state import ServerState
from ..streaming import make_event, respond, send_answer
from .anthropic_input import read_conversation, read_tool_choice, read_tools
from .bodies import Body
from .messages import is_begun
from .openai_input import shape_answer


FORMAT = "output_config.format"


class CountBody(Body):
    """A conversation whose tokens are counted."""

    without_effect: ClassVar = ("metadata", "service_tier", "inference_geo", "cache_control", "speed")
    unsupported: ClassVar = {"container": (), "mcp_servers": ([],), "context_management": ()}

    model: Annotated[str, Field(min_length=1)]
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None

    @property
    def with_thinking(self) -> bool:
        """Tell whether thoughts are answered as blocks of their own."""
        return (self.thinking or {}).get("type") in ("enabled", "adaptive")

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        messages = read_conversation(self.messages, self.system)
        choice, parallel = read_tool_choice(self.tool_choice)
        form = (self.output_config or {}).get("format")
        options, tools = shape_answer(read_tools(self.tools or []), choice, parallel, form, FORMAT)
        return GenerationRequest(
            model=self.model,
            messages=messages,
            options=options,
            names={
                "max_new_tokens": "max_tokens",
                "stop": "stop_sequences",
                "json_schema": FORMAT,
                "grammar": "tools",
            },
            tools=tools,
            continue_final_message=is_begun(messages),
            template_variables={} if self.thinking is None else {"enable_thinking": self.with_thinking},
        )


class MessagesBody(CountBody):
    """A request for the next message of a conversation."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = False

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        asked = super().to_request()
        given = {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "stop": self.stop_sequences or None,
        }
        asked.options.update({name: value for name, value in given.items() if value is not None})
        return asked


def make_anthropic_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1/messages", tags=["Anthropic"])

    @router.post("")
    async def create_message(body: MessagesBody, request: Request) -> Response:
        """Generate the next message of a conversation, whole or as a stream of events."""
        headers = {**body.check_fields(), "request-id": make_request_id()}
        asked = body.to_request()
        generation = await state.generator.start(asked)
        answer = MessageAnswer(generation, body, with_tools="grammar" in asked.options)
        return await send_answer(answer, body.stream, request.url.path, headers)

    @router.post("/count_tokens")
    async def count_tokens(body: CountBody) -> Response:
        """Count the tokens of a conversation, without an answer."""
        headers = {**body.check_fields(), "request-id": make_request_id()}
        return respond({"input_tokens": await state.generator.count_prompt(body.to_request())}, headers)

    return router


class MessageAnswer:
    """Writes a generation in the form of the Anthropic API."""

    def __init__(self, generation: Generation, body: MessagesBody, with_tools: bool) -> None:
        self.generation = generation
        self.body = body
        self.reader = AnswerReader(body.with_thinking, with_tools)
        self.blocks: list[dict[str, Any]] = []  # those begun so far

    async def collect(self) -> dict[str, Any]:
        """Wait for the answer."""
        (tokens,) = await self.generation.finish()
        for part in [*self.reader.read(tokens), *self.reader.finish()]:
            self._extend(part)
        self.blocks += [_make_tool_block(call) for call in self.reader.calls]
        reason, stop_sequence = self._find_stop_reason()
        return {
            **self._start_message(),
            "content": self.blocks,
            "stop_reason": reason,
            "stop_sequence": stop_sequence,
            "usage": self._count_usage(),
        }

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece."""
        has_started = False
        async for _, tokens in self.generation:
            if not has_started:  # only now it is known how much of the prompt was in the cache
                has_started = True
                yield _make_event("message_start", message={**self._start_message(), "usage": self._count_usage()})
                yield _make_event("ping")
            for part in self.reader.read(tokens):
                for event in self._send(part):
                    yield event
        for part in self.reader.finish():
            for event in self._send(part):
                yield event
        if self.blocks:
            yield self._stop_block()
        for call in self.reader.calls:
            block = _make_tool_block(call)
            self.blocks.append(block)
            yield self._start_block({**block, "input": {}})
            yield self._send_delta({"type": "input_json_delta", "partial_json": call.arguments})
            yield self._stop_block()
        reason, stop_sequence = self._find_stop_reason()
        delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
        yield _make_event("message_delta", delta=delta, usage=self._count_usage())
        yield _make_event("message_stop")

    def _send(self, part: Part) -> list[bytes]:
        """Return the events for a part of the answer."""
        events = []
        is_first = not self.blocks
        if self._extend(part):
            block = self.blocks[-1]
            empty = {name: value if name == "type" else "" for name, value in block.items()}
            events += [] if is_first else [self._stop_block(len(self.blocks) - 2)]
            events.append(self._start_block(empty))
        kind = "thinking" if part.is_thinking else "text"
        events.append(self._send_delta({"type": f"{kind}_delta", kind: part.text}))
        return events

    def _extend(self, part: Part) -> bool:
        """Add a part to the blocks; tell whether it began one."""
        kind = "thinking" if part.is_thinking else "text"
        is_new = not self.blocks or self.blocks[-1]["type"] != kind
        if is_new:
            self.blocks.append({"type": kind, kind: "", **({"signature": ""} if part.is_thinking else {})})
        self.blocks[-1][kind] += part.text
        return is_new

    def _start_block(self, block: dict[str, Any]) -> bytes:
        return _make_event("content_block_start", index=len(self.blocks) - 1, content_block=block)

    def _send_delta(self, delta: dict[str, Any]) -> bytes:
        return _make_event("content_block_delta", index=len(self.blocks) - 1, delta=delta)

    def _stop_block(self, index: int | None = None) -> bytes:
        return _make_event("content_block_stop", index=len(self.blocks) - 1 if index is None else index)

    def _start_message(self) -> dict[str, Any]:
        return {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": self.generation.entry.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _find_stop_reason(self) -> tuple[str, str | None]:
        """Tell why the answer ended, and the stop sequence that ended it."""
        stream = self.generation.choices[0]
        if stream.finish_reason == "length":
            is_asked = len(stream.tokens) >= stream.request.options.max_new_tokens
            return "max_tokens" if is_asked else "model_context_window_exceeded", None
        if self.reader.calls:
            return "tool_use", None
        detokenizer = stream.request.detokenizer
        found = None if detokenizer is None else detokenizer.stopped
        return ("stop_sequence", found) if found in (self.body.stop_sequences or ()) else ("end_turn", None)

    def _count_usage(self) -> dict[str, int]:
        prompt, cached, output = self.generation.count_tokens()
        return {
            "input_tokens": prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": output,
        }


def _make_tool_block(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": f"toolu_{uuid.uuid4().hex}",
        "name": call.name,
        "input": json.loads(call.arguments),
    }


def _make_event(kind: str, **content: Any) -> bytes:
    return make_event({"type": kind, **content}, kind)
