"""`/v1/chat/completions` of the OpenAI API."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from ...inference import Engine, Token
from ...inference.tool_calls import ToolCall
from ..answer_parts import AnswerReader
from ..errors import ApiError
from ..generation import Generation, GenerationRequest
from ..state import ServerState
from ..streaming import make_event, send_answer
from .bodies import MAX_TOP_LOGPROBS, Choices, SamplingBody, StreamOptions
from .messages import read_messages
from .openai_examples import CHAT, show_answer
from .openai_input import read_tools, shape_answer


MESSAGE_FIELDS = (
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "annotations",
    "function_call",
    "audio",
)


class ChatBody(SamplingBody):
    """A request for the next message of a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "Where does Ada live?"}], "max_tokens": 40}]
        }
    )
    without_effect: ClassVar = (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "reasoning_effort", "verbosity", "prediction"),
    )
    unsupported: ClassVar = {
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
    }

    model: str | None = None
    messages: list[dict[str, Any]]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def list_ignored(self) -> list[str]:
        """List the fields that were given and mean nothing here, those of messages among them."""
        names = dict.fromkeys(name for message in self.messages for name in message if name not in MESSAGE_FIELDS)
        return [*super().list_ignored(), *(f"messages.{name}" for name in names)]

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        options = self.list_options()
        if self.max_completion_tokens is not None:
            options["max_new_tokens"] = self.max_completion_tokens
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
        if self.logprobs:
            options["logprobs"] = self.top_logprobs or 0
        shape, tools = shape_answer(
            read_tools(self.tools), self.tool_choice, self.parallel_tool_calls is not False, self.response_format
        )
        return GenerationRequest(
            model=self.model,
            messages=read_messages(self.messages),
            options={**options, **shape},
            names={
                "max_new_tokens": "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens",
                "json_schema": "response_format",
                "grammar": "tools",
            },
            n=self.n or 1,
            tools=tools,
            continue_final_message=self.continue_final_message,
            template_variables=self.chat_template_kwargs or {},
        )


def make_chat_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/chat/completions", responses=show_answer(CHAT))
    async def create_chat_completion(body: ChatBody, request: Request) -> Response:
        """Generate the next message of a conversation, whole or as a stream of events."""
        headers = body.check_fields()
        asked = body.to_request()
        generation = await state.generator.start(asked)
        answer = ChatAnswer(generation, body, with_tools="grammar" in asked.options)
        state.generator.running[answer.id] = generation
        return await send_answer(answer, body.stream, request.url.path, headers)

    @router.post("/chat/cancel/{name}")
    async def cancel(name: str) -> dict[str, str]:
        """End a chat completion by its id; what it has written so far is its answer."""
        if not await state.control.cancel(name):
            raise ApiError(404, f"no chat completion with the id {name} is running", code="not_found")
        return {"id": name, "status": "cancelled"}

    return router


class ChatAnswer:
    """Writes a generation in the form of the OpenAI API.

    Args:
        generation: what is running.
        body: what was asked for.
        with_tools: whether calls of tools are told apart from text.
    """

    def __init__(self, generation: Generation, body: ChatBody, with_tools: bool) -> None:
        self.generation = generation
        self.body = body
        self.with_usage = body.stream_options is not None and body.stream_options.include_usage
        self.readers = [AnswerReader(with_thinking=False, with_tools=with_tools) for _ in generation.choices]
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.common = {
            "id": self.id,
            "created": int(time.time()),
            "model": generation.entry.name,
            "system_fingerprint": generation.entry.fingerprint,
        }

    async def collect(self) -> dict[str, Any]:
        """Wait for all choices."""
        choices = []
        for number, tokens in enumerate(await self.generation.finish()):
            reader = self.readers[number]
            text = "".join(part.text for part in [*reader.read(tokens), *reader.finish()])
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if reader.calls:
                message["content"] = text or None
                message["tool_calls"] = [make_call(call) for call in reader.calls]
            choice = {
                "index": number,
                "message": message,
                "logprobs": self._describe_logprobs(tokens),
                "finish_reason": self._find_reason(number),
            }
            if self.body.return_token_ids:
                choice["token_ids"] = [token.id for token in tokens]
            choices.append(choice)
        return {**self.common, "object": "chat.completion", "choices": choices, "usage": count_usage(self.generation)}

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece; calls of tools when they are whole."""
        unfinished = set(range(len(self.readers)))
        for number in unfinished:
            yield self._make_chunk(number, {"role": "assistant", "content": ""})
        async for number, tokens in self.generation:
            text = "".join(part.text for part in self.readers[number].read(tokens))
            if text or self.body.logprobs or self.body.return_token_ids:
                yield self._make_chunk(number, {"content": text}, tokens)
            if tokens[-1].finish_reason is not None:
                unfinished.discard(number)
                for chunk in self._end(number):
                    yield chunk
        for number in unfinished:  # those without any token
            for chunk in self._end(number):
                yield chunk
        if self.with_usage:
            last = {**self.common, "object": "chat.completion.chunk", "choices": []}
            yield make_event({**last, "usage": count_usage(self.generation)})
        yield make_event("[DONE]")

    def _end(self, number: int) -> list[bytes]:
        """Return the last chunks of a choice: held back text, calls of tools, and why it ended."""
        reader = self.readers[number]
        chunks = [self._make_chunk(number, {"content": part.text}) for part in reader.finish()]
        for index, call in enumerate(reader.calls):
            made = make_call(call)
            begun = {"index": index, **made, "function": {**made["function"], "arguments": ""}}
            rest = {"index": index, "function": {"arguments": call.arguments}}
            chunks += [self._make_chunk(number, {"tool_calls": [delta]}) for delta in (begun, rest)]
        return [*chunks, self._make_chunk(number, {}, reason=self._find_reason(number))]

    def _find_reason(self, number: int) -> str:
        """Tell why a choice ended, which is finished."""
        reason = find_reason(self.generation, number)
        return "tool_calls" if reason == "stop" and self.readers[number].calls else reason

    def _make_chunk(
        self, number: int, delta: dict[str, Any], tokens: list[Token] | None = None, reason: str | None = None
    ) -> bytes:
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": self._describe_logprobs(tokens or []),
            "finish_reason": reason,
        }
        if tokens and self.body.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        chunk = {**self.common, "object": "chat.completion.chunk", "choices": [choice]}
        if self.with_usage:
            chunk["usage"] = None
        return make_event(chunk)

    def _describe_logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.body.logprobs or not tokens:
            return None
        return {"content": describe_logprobs(self.generation.engine, tokens), "refusal": None}


def make_call(call: ToolCall) -> dict[str, Any]:
    """Write a call of a tool, under a new name."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def find_reason(generation: Generation, number: int) -> str:
    """Tell why a choice ended, in the words of the OpenAI API; one that was cancelled stopped."""
    return "length" if generation.choices[number].finish_reason == "length" else "stop"


def describe_logprobs(engine: Engine, tokens: list[Token]) -> list[dict[str, Any]]:
    """Describe the probabilities of tokens, and of the likeliest in their places."""

    def describe(token_id: int, logprob: float | None) -> dict[str, Any]:
        return {"token": engine.piece(token_id), "logprob": logprob, "bytes": list(engine.token_bytes(token_id))}

    return [
        {
            **describe(token.id, token.logprob),
            "top_logprobs": [describe(token_id, logprob) for token_id, logprob in token.top_logprobs.items()],
        }
        for token in tokens
    ]


def count_usage(generation: Generation) -> dict[str, Any]:
    """Count tokens in the form of the OpenAI API."""
    prompt, cached, output = generation.count_tokens()
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
