"""The attention of a trained model replaced by others with the same weights: all keys, or the most recent ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from ..models import DogeForCausalLM
from ..ops.dynamic_mask_attention.fused import extend_key, extend_query
from ..ops.dynamic_mask_attention.streaming import streaming_attention


ALL_KEYS = 1 << 40


@contextmanager
def use_attention(model: DogeForCausalLM, name: str) -> Iterator[None]:
    """Let a model attend in another way, one of `evaluation.choices.ATTENTIONS`, until the block ends. Scores bias the softmax in all of them."""
    layers: list[Any] = [layer.self_attn for layer in model.model.layers]
    sizes = [layer.keep_window_size for layer in layers]
    try:
        for layer in layers:
            if name == "full":
                layer.keep_window_size = ALL_KEYS
            elif name == "sliding":
                layer.attend = sliding_window_attention
        yield
    finally:
        for layer, size in zip(layers, sizes, strict=True):
            layer.keep_window_size = size
            layer.__dict__.pop("attend", None)


def sliding_window_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.Tensor,
    *,
    keep_window_size: int,
    scale: float,
    **options: Any,
) -> torch.Tensor:
    """Attend causally to the `keep_window_size` most recent keys, with the score as a bias of the softmax.

    Dynamic mask attention keeps the more recent of keys with equal scores. With the score carried by the keys, and the
    same score for all in its place, it is a sliding window.

    Args:
        query: [B, H, T, d].
        key, value: [B, K, T, d].
        score: [B, K, T].
        keep_window_size: keys that a query sees, its own included.
        scale: of q.k.
        options: of `dynamic_mask_attention`; masks and documents must be None.

    Returns:
        [B, H, T, d].
    """
    assert options.get("padding_mask") is None and options.get("document_ids") is None
    extended = extend_key(key, score)
    padding = extended.shape[-1] - value.shape[-1]  # keys and values that are kept have one size
    output, _ = streaming_attention(
        extend_query(query, scale),
        extended,
        F.pad(value, (0, padding)),
        torch.ones_like(score),
        keep_window_size,
        scale=1.0,  # the query is scaled already
    )
    return output[..., : value.shape[-1]]
