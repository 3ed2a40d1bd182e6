"""The attentions that studies compare, in the same Doge: dynamic mask attention, full causal attention, a sliding window."""

import torch
import torch.nn.functional as F
from torch import nn

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.models.doge.attention import DogeAttention
from small_doge.utils.errors import UserError
from small_doge.utils.suggest import unknown_name_message


ATTENTION_NAMES = {"dma": "dynamic mask", "full": "full attention", "window": "sliding window"}
ATTENTIONS = tuple(ATTENTION_NAMES)
BIASED = "biased"  # dynamic mask attention with a window of the whole length: a bias, and nothing dropped


class UnscoredAttention(DogeAttention):
    """Scores every key alike, so that nothing biases the softmax and the more recent keys are kept: a sliding window.

    With a window of the whole length it is plain causal attention.
    """

    def _compute_scores(self, value: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(value.shape[0], self.num_key_value_heads, value.shape[1])


class ShiftedEmbedding(nn.Module):
    """Adds a second embedding of the token before, a causal convolution of width 2, to that of each token.

    Without it, that a value belongs to the key before it is known only after a layer of attention has learned to look one
    token back, which takes small models thousands of steps.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.current = embedding
        self.previous = nn.Embedding(embedding.num_embeddings, embedding.embedding_dim)
        nn.init.normal_(self.previous.weight, std=float(embedding.weight.detach().std()))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        shifted = self.previous(input_ids[:, :-1])
        return self.current(input_ids) + F.pad(shifted, (0, 0, 1, 0))


def build_model(
    attention: str, length: int, window: int, *, shifted: bool = False, **sizes: object
) -> DogeForCausalLM:
    """A Doge with random weights for sequences of `length` tokens.

    Args:
        attention: `dma` keeps `window` keys by their score, `window` the last `window`, `full` and `biased` all.
        shifted: let each token know the one before it (`ShiftedEmbedding`).
        sizes: other fields of the configuration.
    """
    if attention not in (*ATTENTIONS, BIASED):
        raise UserError(unknown_name_message("attention", attention, (*ATTENTIONS, BIASED)))
    config = DogeConfig(
        max_position_embeddings=length,
        keep_window_size=length if attention in ("full", BIASED) else window,
        tie_word_embeddings=True,
        use_cache=False,
        **sizes,
    )
    model = DogeForCausalLM(config)
    if attention not in ("dma", BIASED):
        for layer in model.model.layers:
            layer.self_attn.__class__ = UnscoredAttention
            for parameter in (layer.self_attn.A, *layer.self_attn.dt_proj.parameters()):
                parameter.requires_grad_(False)  # nothing uses them
    if shifted:
        model.model.embed_tokens = ShiftedEmbedding(model.model.embed_tokens)
    return model
