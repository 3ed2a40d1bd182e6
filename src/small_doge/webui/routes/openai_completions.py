"""`/v1/completions` of the OpenAI API: texts that follow a prompt."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from ...inference import Engine, Token
from ...inference.detokenizer import Detokenizer
from ...inference.prompt_readers import Scorer
from ..generation import Generation, GenerationRequest
from ..state import ServerState
from ..streaming import make_event, send_answer
from .bodies import MAX_TOP_LOGPROBS, Choices, SamplingBody, StreamOptions
from .openai_chat import count_usage, find_reason
from .openai_examples import COMPLETION, show_answer


class CompletionBody(SamplingBody):
    """A request for the text that follows a prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Ada lives in", "max_tokens": 20}]})
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

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share."""
        options = self.list_options()
        if self.logprobs is not None:
            options["logprobs"] = self.logprobs
            if self.echo:
                options["prompt_logprobs"] = self.logprobs
        names = {"max_new_tokens": "max_tokens"}
        return GenerationRequest(self.model, self.list_prompts(), options=options, names=names, n=self.n or 1)


def make_completions_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/completions", responses=show_answer(COMPLETION))
    async def create_completion(body: CompletionBody, request: Request) -> Response:
        """Generate the text that follows a prompt, whole or as a stream of events."""
        headers = body.check_fields()
        generation = await state.generator.start(body.to_request())
        answer = await run_in_threadpool(CompletionAnswer, generation, body)  # an echo may be long
        return await send_answer(answer, body.stream, request.url.path, headers)

    return router


class CompletionAnswer:
    """Writes a generation in the form of the OpenAI API."""

    def __init__(self, generation: Generation, body: CompletionBody) -> None:
        self.generation = generation
        self.body = body
        self.choices = [ChoiceWriter(generation, number, body) for number in range(len(generation.choices))]
        self.common = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": generation.entry.name,
            "system_fingerprint": generation.entry.fingerprint,
        }

    async def collect(self) -> dict[str, Any]:
        """Wait for all choices."""
        outputs = await self.generation.finish()
        choices = [writer.write(tokens, is_last=True) for writer, tokens in zip(self.choices, outputs, strict=True)]
        return {**self.common, "choices": choices, "usage": count_usage(self.generation)}

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece; an echo comes with the first one."""
        unfinished = list(self.choices)
        async for number, tokens in self.generation:
            writer, is_last = self.choices[number], tokens[-1].finish_reason is not None
            yield self._make_chunk(writer.write(tokens, is_last))
            if is_last:
                unfinished.remove(writer)
        for writer in unfinished:  # those without any token
            yield self._make_chunk(writer.write([], is_last=True))
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield make_event({**self.common, "choices": [], "usage": count_usage(self.generation)})
        yield make_event("[DONE]")

    def _make_chunk(self, choice: dict[str, Any]) -> bytes:
        return make_event({**self.common, "choices": [choice]})


class ChoiceWriter:
    """Writes one choice, whole or piece by piece.

    Args:
        generation: what is running.
        number: of the choice.
        body: what was asked for.
    """

    def __init__(self, generation: Generation, number: int, body: CompletionBody) -> None:
        self.engine = generation.engine
        self.generation = generation
        self.number = number
        self.body = body
        self.request = generation.choices[number].request
        self.prompt = self.engine.decode(self.request.prompt_ids, skip_special_tokens=True) if body.echo else ""
        self.is_first = True
        self.offsets = Offsets(self.engine, len(self.prompt))

    def write(self, tokens: list[Token], is_last: bool) -> dict[str, Any]:
        """Write the next piece of the choice, the first with the prompt if it is asked for."""
        is_first, self.is_first = self.is_first, False
        choice: dict[str, Any] = {
            "index": self.number,
            "text": (self.prompt if is_first else "") + "".join(token.text for token in tokens),
            "logprobs": None,
            "finish_reason": find_reason(self.generation, self.number) if is_last else None,
        }
        if self.body.logprobs is not None:
            described, places = list(tokens), self.offsets.place(tokens)
            if is_first and isinstance(self.request.reader, Scorer):
                prompt = self.request.reader.tokens
                described, places = prompt + described, Offsets(self.engine, 0).place(prompt) + places
            choice["logprobs"] = self._describe_logprobs(described, places)
        if self.body.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
            if is_first:
                choice["prompt_token_ids"] = self.request.prompt_ids
        return choice

    def _describe_logprobs(self, tokens: list[Token], places: list[int]) -> dict[str, Any]:
        """Describe the probabilities of tokens, in the form of the API, and by token ids if they were asked for."""
        piece = self.engine.piece
        described: dict[str, Any] = {
            "tokens": [piece(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._list_top(token) for token in tokens],
            "text_offset": places,
        }
        if self.body.return_token_ids:
            described["token_ids"] = [token.id for token in tokens]
            described["top_tokens"] = [
                [{"id": i, "text": piece(i), "logprob": logprob} for i, logprob in token.top_logprobs.items()]
                for token in tokens
            ]
        return described

    def _list_top(self, token: Token) -> dict[str, float] | None:
        """Return the likeliest tokens by their text, and the token itself; None for the first of a text."""
        if token.logprob is None:
            return None
        top: dict[str, float] = {}
        for token_id, logprob in [*token.top_logprobs.items(), (token.id, token.logprob)]:
            top.setdefault(self.engine.piece(token_id), logprob)  # of two with one text, the likelier
        return top


class Offsets:
    """Finds where the text of each token begins, in characters.

    A token that holds a part of a character only stands where the character does, and one without text where the next is.
    """

    def __init__(self, engine: Engine, start: int) -> None:
        assert engine.tokenizer is not None
        self.start = start
        self.detokenizer = Detokenizer(engine.tokenizer)

    def place(self, tokens: Sequence[Token]) -> list[int]:
        """Return the places of the next tokens."""
        places = []
        for token in tokens:
            places.append(self.start + len(self.detokenizer.text))
            self.detokenizer.push(token.id)
        return places
