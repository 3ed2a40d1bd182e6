"""The attentions that studies compare, in the same Doge: dynamic mask attention, full causal attention, a sliding window."""

import torch

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.models.doge.attention import DogeAttention
from small_doge.utils.errors import UserError
from small_doge.utils.suggest import unknown_name_message


ATTENTION_NAMES = {"dma": "dynamic mask", "full": "full attention", "window": "sliding window"}
ATTENTIONS = tuple(ATTENTION_NAMES)


class UnscoredAttention(DogeAttention):
    """Scores every key alike, so that nothing biases the softmax and the more recent keys are kept: a sliding window.

    With a window of the whole length it is plain causal attention.
    """

    def _compute_scores(self, value: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(value.shape[0], self.num_key_value_heads, value.shape[1])


def build_model(attention: str, length: int, window: int, **sizes: object) -> DogeForCausalLM:
    """A Doge with random weights for sequences of `length` tokens.

    Args:
        attention: `dma` keeps `window` keys by their score, `window` the last `window`, `full` all.
        sizes: other fields of the configuration.
    """
    if attention not in ATTENTIONS:
        raise UserError(unknown_name_message("attention", attention, ATTENTIONS))
    config = DogeConfig(
        max_position_embeddings=length,
        keep_window_size=length if attention == "full" else window,
        tie_word_embeddings=True,
        use_cache=False,
        **sizes,
    )
    model = DogeForCausalLM(config)
    if attention != "dma":
        for layer in model.model.layers:
            layer.self_attn.__class__ = UnscoredAttention
            for parameter in (layer.self_attn.A, *layer.self_attn.dt_proj.parameters()):
                parameter.requires_grad_(False)  # nothing uses them
    return model
