"""Embeddings of texts, which the OpenAI and the Ollama API serve."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from ..inference.prompt_readers import Embedder
from .errors import ApiError
from .generation import GenerationRequest, Generator


async def embed(
    generator: Generator, model: str | None, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None
) -> tuple[list[np.ndarray], int]:
    """Embed texts or token ids, as many at once as the model has slots.

    Args:
        generator: starts the requests.
        model: name of the model; the server's first if None.
        inputs: what to embed.
        dimensions: what the client asks for; only the model's own size can be given.

    Returns:
        For each the mean of the last hidden states [D] float32, of length 1; and the number of tokens of all.

    Raises:
        ApiError: there is no such model, its embeddings have other dimensions, or the queue is full.
        UserError: a text does not fit, or the model was exported without hidden states.
    """
    vectors: list[np.ndarray] = []
    num_tokens, step = 0, generator.settings.num_slots
    with await generator.registry.acquire(model) as entry:
        size = entry.engine.backend.hidden_size
        if size is not None and dimensions not in (None, size):
            raise ApiError(
                400,
                f"dimensions={dimensions}: this model's embeddings have {size}, and can't be cut; leave it out",
                "dimensions",
                "unsupported",
            )
        for start in range(0, len(inputs), step):
            asked = GenerationRequest(
                entry.name, inputs[start : start + step], names={"prompt": "input"}, make_reader=Embedder
            )
            with await generator.start(asked) as generation:
                await generation.finish()
                num_tokens += generation.count_tokens()[0]
                for stream in generation.choices:
                    vector = cast(Embedder, stream.request.reader).embedding
                    assert vector is not None
                    vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
    return vectors, num_tokens
