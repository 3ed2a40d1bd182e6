"""`/v1/completions` of the OpenAI API: texts that follow a prompt."""

import time
import uuid
from collections.abc import AsyncIterator
from itertools import accumulate
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from ...inference import Token
from ..errors import ApiError
from ..generation import Generation, GenerationRequest
from ..state import ServerState
from ..streaming import GenerationStream, make_event, respond
from .bodies import Choices, SamplingBody, StreamOptions
from .openai_chat import MAX_TOP_LOGPROBS, count_usage


class CompletionBody(SamplingBody):
    """A request for the text that follows a prompt."""

    without_effect: ClassVar = ("user",)
    unsupported: ClassVar = {"suffix": ("",), "best_of": (1,)}

    model: str | None = None
    prompt: str | list[str] | list[int] | list[list[int]]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    def list_prompts(self) -> list[str | list[int]]:
        """Return the prompts, of which there may be several."""
        prompt: Any = self.prompt
        several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        return prompt if several else [prompt]


def make_completions_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/completions")
    async def create_completion(body: CompletionBody, request: Request) -> Response:
        """Generate the text that follows a prompt, whole or as a stream of events."""
        headers = body.check_fields()
        prompts = body.list_prompts()
        if len(prompts) != 1:
            raise ApiError(400, f"prompt holds {len(prompts)} prompts; send each by a request of its own", "prompt")
        options = body.list_options()
        if body.logprobs is not None:
            options["logprobs"] = body.logprobs
        asked = GenerationRequest(model=body.model, prompt=prompts[0], options=options, n=body.n or 1)
        generation = await state.generator.start(asked)
        answer = CompletionAnswer(generation, body)
        if body.stream:
            return GenerationStream(generation, answer.stream(), request.url.path, headers)
        with generation:
            return respond(await answer.collect(), headers)

    return router


class CompletionAnswer:
    """Writes a generation in the form of the OpenAI API."""

    def __init__(self, generation: Generation, body: CompletionBody) -> None:
        self.generation = generation
        self.body = body
        self.common = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": generation.entry.name,
            "system_fingerprint": generation.entry.fingerprint,
        }
        self.prompt = generation.engine.decode(generation.prompt_ids, skip_special_tokens=True) if body.echo else ""

    async def collect(self) -> dict[str, Any]:
        """Wait for all choices."""
        await self.generation.finish()
        choices = []
        for number, stream in enumerate(self.generation.choices):
            tokens = stream.tokens
            text = "".join(token.text for token in tokens)
            reason = tokens[-1].finish_reason if tokens else "stop"
            choices.append(self._make_choice(number, self.prompt + text, tokens, len(self.prompt), reason, True))
        return {**self.common, "choices": choices, "usage": count_usage(self.generation)}

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece."""
        offsets = [len(self.prompt)] * len(self.generation.choices)
        is_first = [True] * len(offsets)
        if self.body.echo:
            for number in range(len(offsets)):
                yield self._make_chunk(self._make_choice(number, self.prompt, [], 0, None, True))
        async for number, tokens in self.generation:
            text = "".join(token.text for token in tokens)
            reason = tokens[-1].finish_reason
            yield self._make_chunk(self._make_choice(number, text, tokens, offsets[number], reason, is_first[number]))
            offsets[number], is_first[number] = offsets[number] + len(text), False
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield make_event({**self.common, "choices": [], "usage": count_usage(self.generation)})
        yield make_event("[DONE]")

    def _make_chunk(self, choice: dict[str, Any]) -> bytes:
        return make_event({**self.common, "choices": [choice]})

    def _make_choice(
        self, number: int, text: str, tokens: list[Token], offset: int, reason: str | None, is_first: bool
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": number,
            "text": text,
            "logprobs": None if self.body.logprobs is None else self._describe_logprobs(tokens, offset),
            "finish_reason": reason,
        }
        if self.body.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
            if is_first:
                choice["prompt_token_ids"] = self.generation.prompt_ids
        return choice

    def _describe_logprobs(self, tokens: list[Token], offset: int) -> dict[str, Any]:
        """Describe the probabilities of tokens, in the form of the API, and by token ids if they were asked for."""
        piece = self.generation.engine.piece
        described: dict[str, Any] = {
            "tokens": [piece(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{piece(i): logprob for i, logprob in token.top_logprobs.items()} for token in tokens],
            "text_offset": list(accumulate((len(token.text) for token in tokens), initial=offset))[: len(tokens)],
        }
        if self.body.return_token_ids:
            described["token_ids"] = [token.id for token in tokens]
            described["top_tokens"] = [
                [{"id": i, "text": piece(i), "logprob": logprob} for i, logprob in token.top_logprobs.items()]
                for token in tokens
            ]
        return described
