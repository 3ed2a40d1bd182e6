"""`/v1/embeddings` of the OpenAI API."""

import base64
from typing import Any, ClassVar, Literal

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict

from ..embeddings import embed
from ..errors import ApiError
from ..state import ServerState
from ..streaming import respond
from .bodies import Body
from .openai_examples import EMBEDDINGS, show_answer


MAX_INPUTS = 2048


class EmbeddingBody(Body):
    """Texts or token ids to embed.

    An embedding is the mean of the last hidden states, of length 1. It is weak: the models are trained to write.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["Ada lives in Paris.", "Bob has a dog."]}]})
    without_effect: ClassVar = ("user",)

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None

    def list_inputs(self) -> list[str | list[int]]:
        """Return the inputs, of which there may be several.

        Raises:
            ApiError: there is none, or there are too many.
        """
        given: Any = self.input
        inputs = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise ApiError(400, f"input holds {len(inputs)} inputs; send 1 to {MAX_INPUTS}", "input")
        return inputs


def make_embeddings_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["OpenAI"])

    @router.post("/embeddings", responses=show_answer(EMBEDDINGS, streams=False))
    async def create_embeddings(body: EmbeddingBody) -> Response:
        """Embed texts or token ids."""
        headers = body.check_fields()
        inputs = body.list_inputs()
        vectors, num_tokens = await embed(state.generator, body.model, inputs, body.dimensions)
        data = [
            {"object": "embedding", "index": number, "embedding": _write(vector, body.encoding_format)}
            for number, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        name = state.registry.find(body.model).name
        return respond({"object": "list", "data": data, "model": name, "usage": usage}, headers)

    return router


def _write(vector: np.ndarray, encoding: str | None) -> list[float] | str:
    """Write a vector as numbers, or as float32 in little-endian order by Base64."""
    plain = vector.astype("<f4")
    return base64.b64encode(plain.tobytes()).decode() if encoding == "base64" else plain.tolist()
