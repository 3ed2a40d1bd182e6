"""Embeddings of texts, which the OpenAI and the Ollama API serve."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from ..inference.prompt_readers import Embedder
from .generation import GenerationRequest, Generator


async def embed(
    generator: Generator, model: str | None, inputs: Sequence[str | Sequence[int]]
) -> tuple[list[np.ndarray], int]:
    """Embed texts or token ids, as many at once as the model has slots.

    Returns:
        For each the mean of the last hidden states [D] float32, of length 1; and the number of tokens of all.

    Raises:
        ApiError: there is no such model, or the queue is full.
        UserError: a text does not fit, or the model was exported without hidden states.
    """
    vectors: list[np.ndarray] = []
    num_tokens = 0
    size = generator.settings.num_slots
    for start in range(0, len(inputs), size):
        asked = GenerationRequest(model, prompts=inputs[start : start + size], make_reader=Embedder)
        with await generator.start(asked) as generation:
            await generation.finish()
            num_tokens += generation.count_tokens()[0]
            for stream in generation.choices:
                vector = cast(Embedder, stream.request.reader).embedding
                assert vector is not None
                vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
    return vectors, num_tokens
