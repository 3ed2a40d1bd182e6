"""How answers are sent: as JSON, or as a stream of events or lines."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from fastapi.responses import Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from .errors import describe_error, to_api_error, to_json
from .generation import Generation


def make_event(content: Any, event: str | None = None) -> bytes:
    """Write one event."""
    return format_sse_event(data_str=content if isinstance(content, str) else to_json(content), event=event)


def respond(content: Any, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(to_json(content), media_type="application/json", headers=headers)


class Answer(Protocol):
    """Writes a generation in the form of a protocol.

    Attributes:
        generation: what is running.
    """

    generation: Generation

    async def collect(self) -> dict[str, Any]:
        """Wait for the end, and return the whole answer."""

    def stream(self) -> AsyncIterator[bytes]:
        """Give the answer piece by piece."""


async def send_answer(
    answer: Answer, as_stream: bool | None, path: str, headers: dict[str, str], media_type: str | None = None
) -> Response:
    """Send an answer whole or as a stream; its generation ends with the response, however that ends.

    Args:
        answer: writes it.
        as_stream: whether it is sent piece by piece.
        path: of the request.
        headers: further headers.
        media_type: of a stream that is none of events.
    """
    if as_stream:
        return GenerationStream(answer.generation, answer.stream(), path, headers, media_type)
    with answer.generation:
        return respond(await answer.collect(), headers)


class GenerationStream(EventSourceResponse):
    """Sends what a generation gives, and ends the generation with the response, however that ends.

    Args:
        generation: what is running.
        chunks: makes the bytes to send; an error becomes the last of them, in the form of the path's protocol.
        path: of the request.
        headers: further headers.
        media_type: of the response, if it is no stream of events.
    """

    def __init__(
        self,
        generation: Generation,
        chunks: AsyncIterator[bytes],
        path: str,
        headers: dict[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(
            _end_with_error(chunks, path),
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
            media_type=media_type,
        )
        self.generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.generation.close()


async def _end_with_error(chunks: AsyncIterator[bytes], path: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:  # noqa: BLE001 (the server's edge: the status line is sent already)
        body = describe_error(to_api_error(error), path)
        if isinstance(body["error"], str):  # Ollama's lines
            yield f"{to_json(body)}\n".encode()
        elif "type" in body:  # Anthropic's events
            yield make_event(body, "error")
        else:
            yield make_event(body) + make_event("[DONE]")
