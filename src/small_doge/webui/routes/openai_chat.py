"""`/v1/chat/completions` of the OpenAI API."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from ...inference import Token
from ..errors import ApiError
from ..generation import Generation, GenerationRequest
from ..state import ServerState
from ..streaming import GenerationStream, make_event, respond
from .bodies import Choices, SamplingBody, StreamOptions, read_messages


MAX_TOP_LOGPROBS = 20


class ChatBody(SamplingBody):
    """A request for the next message of a conversation."""

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
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        options = self.list_options()
        if self.max_completion_tokens is not None:
            options["max_new_tokens"] = self.max_completion_tokens
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
        if self.logprobs:
            options["logprobs"] = self.top_logprobs or 0
        return GenerationRequest(
            model=self.model,
            messages=read_messages(self.messages),
            options=options,
            n=self.n or 1,
            continue_final_message=self.continue_final_message,
            template_variables=self.chat_template_kwargs or {},
        )


def make_chat_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/chat/completions")
    async def create_chat_completion(body: ChatBody, request: Request) -> Response:
        """Generate the next message of a conversation, whole or as a stream of events."""
        headers = body.check_fields()
        generation = await state.generator.start(body.to_request())
        answer = ChatAnswer(generation, body)
        if body.stream:
            return GenerationStream(generation, answer.stream(), request.url.path, headers)
        with generation:
            return respond(await answer.collect(), headers)

    return router


class ChatAnswer:
    """Writes a generation in the form of the OpenAI API."""

    def __init__(self, generation: Generation, body: ChatBody) -> None:
        self.generation = generation
        self.body = body
        self.common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": generation.entry.name,
            "system_fingerprint": generation.entry.fingerprint,
        }

    async def collect(self) -> dict[str, Any]:
        """Wait for all choices."""
        choices = []
        for number, tokens in enumerate(await self.generation.finish()):
            choice = {
                "index": number,
                "message": {"role": "assistant", "content": "".join(token.text for token in tokens), "refusal": None},
                "logprobs": self._describe_logprobs(tokens),
                "finish_reason": tokens[-1].finish_reason if tokens else "stop",
            }
            if self.body.return_token_ids:
                choice["token_ids"] = [token.id for token in tokens]
            choices.append(choice)
        return {**self.common, "object": "chat.completion", "choices": choices, "usage": count_usage(self.generation)}

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece."""
        with_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        for number in range(len(self.generation.choices)):
            yield self._make_chunk(number, {"role": "assistant", "content": ""})
        async for number, tokens in self.generation:
            text = "".join(token.text for token in tokens)
            if text or self.body.logprobs or self.body.return_token_ids:
                yield self._make_chunk(number, {"content": text}, tokens)
            if tokens[-1].finish_reason is not None:
                yield self._make_chunk(number, {}, reason=tokens[-1].finish_reason)
        if with_usage:
            chunk = {**self.common, "object": "chat.completion.chunk", "choices": []}
            yield make_event({**chunk, "usage": count_usage(self.generation)})
        yield make_event("[DONE]")

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
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            chunk["usage"] = None
        return make_event(chunk)

    def _describe_logprobs(self, tokens: list[Token]) -> dict[str, Any] | None:
        if not self.body.logprobs or not tokens:
            return None
        return {"content": [self._describe_token(token) for token in tokens], "refusal": None}

    def _describe_token(self, token: Token) -> dict[str, Any]:
        engine = self.generation.engine

        def describe(token_id: int, logprob: float | None) -> dict[str, Any]:
            return {"token": engine.piece(token_id), "logprob": logprob, "bytes": list(engine.token_bytes(token_id))}

        top = [describe(token_id, logprob) for token_id, logprob in token.top_logprobs.items()]
        return {**describe(token.id, token.logprob), "top_logprobs": top}


def count_usage(generation: Generation) -> dict[str, Any]:
    """Count tokens in the form of the OpenAI API."""
    prompt, cached, output = generation.count_tokens()
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
