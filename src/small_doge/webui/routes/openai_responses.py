"""`/v1/responses` of the OpenAI API, without a memory: each request holds the whole conversation."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...inference import Token
from ...inference.tool_calls import ToolCall
from ..answer_parts import AnswerReader
from ..errors import ApiError, to_api_error
from ..generation import Generation
from ..state import ServerState
from ..streaming import make_event, respond, send_answer
from .openai_chat import describe_logprobs, find_reason
from .openai_examples import RESPONSE, show_answer
from .responses_input import ResponseBody


def make_responses_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/responses", tags=["OpenAI"])

    @router.post("", responses=show_answer(RESPONSE))
    async def create_response(body: ResponseBody, request: Request) -> Response:
        """Generate a response, whole or as a stream of events."""
        headers = body.check_fields()
        asked = body.to_request()
        generation = await state.generator.start(asked)
        answer = ResponseAnswer(generation, body, with_tools="grammar" in asked.options)
        return await send_answer(answer, body.stream, request.url.path, headers)

    @router.post("/input_tokens")
    async def count_input_tokens(body: ResponseBody) -> Response:
        """Count the tokens of a request, without a response."""
        headers = body.check_fields()
        count = await state.generator.count_prompt(body.to_request())
        return respond({"object": "response.input_tokens", "input_tokens": count}, headers)

    @router.get("/{name}")
    def get_response(name: str) -> Response:
        """Say that responses are not kept."""
        raise ApiError(404, f"there is no response {name}: this server keeps none; store it where it is received")

    return router


class ResponseAnswer:
    """Writes a generation in the form of `/v1/responses`.

    Args:
        generation: what is running.
        body: what was asked for.
        with_tools: whether calls of tools are told apart from text.
    """

    def __init__(self, generation: Generation, body: ResponseBody, with_tools: bool) -> None:
        self.generation = generation
        self.body = body
        self.reader = AnswerReader(with_thinking=False, with_tools=with_tools)
        self.id, self.created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self.message_id = f"msg_{uuid.uuid4().hex}"
        self.text, self.has_begun = "", False
        self.output: list[dict[str, Any]] = []
        self.num_events = 0

    async def collect(self) -> dict[str, Any]:
        """Wait for the response."""
        (tokens,) = await self.generation.finish()
        self.text = "".join(part.text for part in [*self.reader.read(tokens), *self.reader.finish()])
        if self.text or not self.reader.calls:
            self.output.append(self._make_message(self._find_status()))
        self.output += [_make_call(call) for call in self.reader.calls]
        return self._describe(self._find_status())

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the response piece by piece; calls of tools when they are whole."""
        try:
            yield self._make_event("created", response=self._describe("in_progress"))
            yield self._make_event("in_progress", response=self._describe("in_progress"))
            untold: list[Token] = []  # whose probabilities are not yet sent
            async for _, tokens in self.generation:
                untold += tokens
                for part in self.reader.read(tokens):
                    for event in self._send(part.text, untold):
                        yield event
                    untold = []
            for event in self._end(untold):
                yield event
        except Exception as error:  # noqa: BLE001 (the server's edge: this API has an event for it)
            told = to_api_error(error)
            failed = {"code": "server_error", "message": told.message}
            yield self._make_event("failed", response={**self._describe("failed"), "error": failed})

    def _send(self, text: str, tokens: list[Token]) -> list[bytes]:
        """Return the events for a piece of text."""
        events = self._begin_message()
        self.text += text
        logprobs = self._describe_logprobs(tokens)
        return [*events, self._make_event("output_text.delta", **self._place(), delta=text, logprobs=logprobs)]

    def _begin_message(self) -> list[bytes]:
        """Return the events that begin the message; none if it has begun."""
        if self.has_begun:
            return []
        self.has_begun = True
        empty = {**self._make_message("in_progress"), "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            self._make_event("output_item.added", output_index=0, item=empty),
            self._make_event("content_part.added", **self._place(), part=part),
        ]

    def _end(self, untold: list[Token]) -> list[bytes]:
        """Return the events after the last token, with the probabilities that are not yet sent."""
        rest = "".join(part.text for part in self.reader.finish())
        events, status = [], self._find_status()
        if rest or self.text or not self.reader.calls:
            is_delta_left = rest or (untold and self.body.with_logprobs)
            events += self._send(rest, untold) if is_delta_left else self._begin_message()
            message = self._make_message(status)
            (part,) = message["content"]
            events += [
                self._make_event("output_text.done", **self._place(), text=self.text, logprobs=part["logprobs"]),
                self._make_event("content_part.done", **self._place(), part=part),
                self._make_event("output_item.done", output_index=0, item=message),
            ]
            self.output.append(message)
        for call in self.reader.calls:
            events += self._send_call(_make_call(call))
        last = "completed" if status == "completed" else "incomplete"
        return [*events, self._make_event(last, response=self._describe(status))]

    def _send_call(self, item: dict[str, Any]) -> list[bytes]:
        """Return the events for a call of a tool."""
        index, arguments = len(self.output), item["arguments"]
        place = {"output_index": index, "item_id": item["id"]}
        begun = {**item, "arguments": "", "status": "in_progress"}
        self.output.append(item)
        return [
            self._make_event("output_item.added", output_index=index, item=begun),
            self._make_event("function_call_arguments.delta", **place, delta=arguments),
            self._make_event("function_call_arguments.done", **place, name=item["name"], arguments=arguments),
            self._make_event("output_item.done", output_index=index, item=item),
        ]

    def _place(self) -> dict[str, Any]:
        """Tell where the text of the message stands; it is before all calls."""
        return {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def _make_event(self, kind: str, **content: Any) -> bytes:
        name = f"response.{kind}"
        event = make_event({"type": name, "sequence_number": self.num_events, **content}, name)
        self.num_events += 1
        return event

    def _make_message(self, status: str) -> dict[str, Any]:
        logprobs = self._describe_logprobs(self.generation.choices[0].tokens)
        part = {"type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs}
        return {"id": self.message_id, "type": "message", "role": "assistant", "status": status, "content": [part]}

    def _describe_logprobs(self, tokens: list[Token]) -> list[dict[str, Any]]:
        return describe_logprobs(self.generation.engine, tokens) if self.body.with_logprobs else []

    def _find_status(self) -> str:
        return "incomplete" if find_reason(self.generation, 0) == "length" else "completed"

    def _describe(self, status: str) -> dict[str, Any]:
        """Return the response as it is now."""
        body, options = self.body, self.generation.choices[0].request.options
        is_over = status in ("completed", "incomplete")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": (body.model_extra or {}).get("metadata") or {},
            "model": self.generation.entry.name,
            "output": list(self.output),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": options.temperature,
            "text": {"format": {"type": "text"}, **(body.text or {})},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": options.top_p,
            "truncation": "disabled",
            "usage": self._count_usage() if is_over else None,
        }

    def _count_usage(self) -> dict[str, Any]:
        prompt, cached, output = self.generation.count_tokens()
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }


def _make_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{uuid.uuid4().hex}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{uuid.uuid4().hex}",
        "name": call.name,
        "arguments": call.arguments,
    }
