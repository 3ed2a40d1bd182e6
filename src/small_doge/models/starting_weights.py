"""Other starting weights than the usual ones, for new models: the architecture, and so its configuration, stays as it is."""

from typing import Any

import torch

from ..utils.errors import UserError
from .doge.modeling_doge import DogeForCausalLM


@torch.no_grad()
def set_starting_weights(
    model: DogeForCausalLM,
    zero_outputs: bool = False,
    embedding_std: float | None = None,
    query_key_gain: float | None = None,
    prefix: str = "",
) -> None:
    """Change the weights that a new model starts from, in place.

    Args:
        model: a Doge that was not trained.
        zero_outputs: set the last product of each attention and feed-forward layer to zero, so that a layer adds nothing at
            first.
        embedding_std: standard deviation of the embedding's entries. Where the head shares them, the final norm's weights become
            `initializer_range` over this, so that the first logits are as near to each other as usual.
        query_key_gain: weights of the norms of queries and keys; the logits of attention grow with its square.
        prefix: of the names in messages, for settings of a recipe.

    Raises:
        UserError: a value that is not above 0.
    """
    for name, value in (("embedding_std", embedding_std), ("query_key_gain", query_key_gain)):
        if value is not None and not value > 0:
            raise UserError(f"{prefix}{name}={value} must be above 0")
    layers: Any = model.model.layers
    for layer in layers:
        if zero_outputs:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            if hasattr(layer.mlp, "up_embed"):  # what the experts add
                layer.mlp.up_embed.weight.zero_()
        if query_key_gain is not None:
            layer.self_attn.q_norm.weight.fill_(query_key_gain)
            layer.self_attn.k_norm.weight.fill_(query_key_gain)
    if embedding_std is not None:
        embedding = model.model.embed_tokens.weight
        embedding.mul_(embedding_std / embedding.std())
        if model.lm_head.weight is embedding:
            model.model.norm.weight.fill_(model.config.initializer_range / embedding_std)
