"""`/api/chat`, `/api/generate` and `/api/embed` of the Ollama API."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ...inference import Token
from ...inference.tool_calls import ToolCall
from ..answer_parts import AnswerReader
from ..embeddings import embed
from ..errors import to_json
from ..generation import Generation
from ..state import ServerState
from ..streaming import respond, send_answer
from .ollama_input import AnswerBody, ChatBody, EmbedBody, GenerateBody, KeptBody, OldEmbedBody
from .openai_chat import describe_logprobs


LINES = "application/x-ndjson"


def make_ollama_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["Ollama"], strict_content_type=False)

    @router.post("/chat")
    async def chat(body: ChatBody, request: Request) -> Response:
        """Generate the next message of a conversation, line by line unless `stream` is false."""
        return await _answer(state, body, request.url.path)

    @router.post("/generate")
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Generate the answer to a prompt, line by line unless `stream` is false."""
        return await _answer(state, body, request.url.path)

    @router.post("/embed")
    async def embed_texts(body: EmbedBody) -> Response:
        """Embed texts, by the mean of the last hidden states."""
        start = time.perf_counter_ns()
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors, num_tokens, load = await _embed(state, body, texts, body.dimensions)
        times = {"total_duration": time.perf_counter_ns() - start, "load_duration": load}
        said = {"model": body.model, "embeddings": vectors, **times, "prompt_eval_count": num_tokens}
        return respond(said, body.check_fields())

    @router.post("/embeddings")
    async def embed_prompt(body: OldEmbedBody) -> Response:
        """Embed a text, in the older form."""
        vectors, _, _ = await _embed(state, body, [body.prompt])
        return respond({"embedding": vectors[0]}, body.check_fields())

    return router


async def _embed(
    state: ServerState, body: KeptBody, texts: Sequence[str], dimensions: int | None = None
) -> tuple[list[list[float]], int, int]:
    """Return embeddings, the number of tokens of all texts, and the nanoseconds that loading the model took."""
    must_unload = body.must_unload()
    start = time.perf_counter_ns()
    with await state.registry.acquire(body.model):
        load = time.perf_counter_ns() - start
        vectors, num_tokens = await embed(state.generator, body.model, texts, dimensions)
    if must_unload:
        await state.control.unload(body.model, only_idle=True)
    return [vector.tolist() for vector in vectors], num_tokens, load


async def _answer(state: ServerState, body: ChatBody | GenerateBody, path: str) -> Response:
    """Answer a request; one that says nothing loads the model, or unloads it."""
    headers = body.check_fields()
    must_unload = body.must_unload()
    start = time.perf_counter_ns()
    if not (body.messages if isinstance(body, ChatBody) else body.prompt or body.context):
        if must_unload:
            await state.control.unload(body.model, only_idle=True)
        else:
            await state.control.load(body.model)
        return _respond_at_once(body, "unload" if must_unload else "load", headers)
    with await state.registry.acquire(body.model) as entry:
        load = time.perf_counter_ns() - start
        most_tokens = state.settings.max_output_tokens
        if isinstance(body, ChatBody):
            asked = body.to_request(most_tokens)
        else:
            asked = body.to_request(most_tokens, can_chat=entry.describe()["can_chat"])
        generation = await state.generator.start(asked)
    answer = OllamaAnswer(state, generation, body, "grammar" in asked.options, start, load)
    return await send_answer(answer, body.stream is not False, path, headers, LINES)


def _respond_at_once(body: ChatBody | GenerateBody, reason: str, headers: dict[str, str]) -> Response:
    said = {**_start_line(body), **_show(body, "", ""), "done": True, "done_reason": reason}
    if body.stream is False:
        return respond(said, headers)
    return Response(f"{to_json(said)}\n", media_type=LINES, headers=headers)


class OllamaAnswer:
    """Writes a generation in the form of the Ollama API.

    Args:
        state: of the server.
        generation: what is running.
        body: what was asked for.
        with_tools: whether the model may call tools.
        start: when the request came, in nanoseconds.
        load: nanoseconds that loading the model took.
    """

    def __init__(
        self,
        state: ServerState,
        generation: Generation,
        body: ChatBody | GenerateBody,
        with_tools: bool,
        start: int,
        load: int,
    ) -> None:
        self.state = state
        self.generation = generation
        self.body = body
        self.start, self.load = start, load
        self.reader = AnswerReader(body.with_thinking, with_tools)

    async def collect(self) -> dict[str, Any]:
        """Wait for the answer."""
        (tokens,) = await self.generation.finish()
        parts = [*self.reader.read(tokens), *self.reader.finish()]
        thought = "".join(part.text for part in parts if part.is_thinking)
        said = "".join(part.text for part in parts if not part.is_thinking)
        return {
            **_start_line(self.body),
            **_show(self.body, said, thought, self.reader.calls),
            **self._describe_logprobs(tokens),
            **await self._finish(),
        }

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the answer line by line."""
        untold: list[Token] = []  # whose probabilities are not yet sent
        async for _, tokens in self.generation:
            untold += tokens
            for is_thinking, text in self.reader.read(tokens):
                yield self._write("" if is_thinking else text, text if is_thinking else "", untold)
                untold = []
        for is_thinking, text in self.reader.finish():
            yield self._write("" if is_thinking else text, text if is_thinking else "", untold)
            untold = []
        if self.reader.calls:
            yield self._write("", "", untold, self.reader.calls)
            untold = []
        end = {**_show(self.body, "", ""), **self._describe_logprobs(untold), **await self._finish()}
        yield f"{to_json({**_start_line(self.body), **end})}\n".encode()

    def _write(self, said: str, thought: str, tokens: list[Token], calls: list[ToolCall] | None = None) -> bytes:
        shown = {**_show(self.body, said, thought, calls), **self._describe_logprobs(tokens), "done": False}
        return f"{to_json({**_start_line(self.body), **shown})}\n".encode()

    async def _finish(self) -> dict[str, Any]:
        """Give the model back; return the reason, the counts and the times of the answer."""
        self.generation.close()
        if self.body.must_unload():
            await self.state.control.unload(self.generation.entry.name, only_idle=True)
        stream = self.generation.choices[0]
        prompt, _, output = self.generation.count_tokens()
        now = time.monotonic()
        first = now if stream.first_token is None else stream.first_token
        facts: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if stream.finish_reason == "length" else "stop",
            "total_duration": time.perf_counter_ns() - self.start,
            "load_duration": self.load,
            "prompt_eval_count": prompt,
            "prompt_eval_duration": int((first - stream.created) * 1e9),
            "eval_count": output,
            "eval_duration": int((now - first) * 1e9),
        }
        if isinstance(self.body, GenerateBody) and not self.body.raw:
            facts["context"] = [*self.generation.prompt_ids, *(token.id for token in stream.tokens)]
        return facts

    def _describe_logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        if not self.body.logprobs or not tokens:
            return {}
        return {"logprobs": describe_logprobs(self.generation.engine, tokens)}


def _start_line(body: KeptBody) -> dict[str, Any]:
    return {"model": body.model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}


def _show(body: AnswerBody, said: str, thought: str, calls: list[ToolCall] | None = None) -> dict[str, Any]:
    """Return what was said, as the path's answers hold it."""
    thinking = {"thinking": thought} if thought else {}
    if isinstance(body, GenerateBody):
        return {"response": said, **thinking}
    tools = [{"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls or []]
    message = {"role": "assistant", "content": said, **thinking, **({"tool_calls": tools} if tools else {})}
    return {"message": message}
