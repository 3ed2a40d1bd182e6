"""Doge with experts for plain `transformers`: what an exported folder carries for `trust_remote_code=True`.

The export copies this file as it is, so it imports nothing of small_doge. It is `transformers`' own Doge, except that
each token chooses its experts by its own router logits (arXiv:2412.11834); `transformers` splits another axis, which
routes a token by other tokens' logits.
`import small_doge` in place of `trust_remote_code=True` gives the faster attention, the bounded cache and training.
"""

import torch
from transformers import DogeConfig, DogeForCausalLM
from transformers.models.doge.modeling_doge import DogeCDMoE


class DogeMoeConfig(DogeConfig):
    """Holds the settings of a model whose tokens each choose their experts by themselves."""

    model_type = "doge_moe"

    is_moe: bool = True


class CausalCDMoE(DogeCDMoE):
    """Adds experts of one neuron to the gated layer; expert i * kappa + j scores r_x[i] + r_y[j] of the same token."""

    def forward(self, hidden_states: torch.Tensor, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Transform hidden states [B, T, D]; returns them and the router logits [2, B * T, kappa]."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        router_logits = self.router_gate(tokens).unflatten(-1, (2, self.num_keys))
        best = min(self.top_k, self.num_keys)
        scores, index = router_logits.topk(best, dim=-1)
        sums = (scores[:, 0, :, None] + scores[:, 1, None, :]).flatten(1)
        experts = (index[:, 0, :, None] * self.num_keys + index[:, 1, None, :]).flatten(1)
        chosen_scores, chosen = sums.topk(self.top_k, dim=-1)
        experts = experts.gather(-1, chosen)
        products = torch.einsum("nkd,nd->nk", self.down_embed(experts), tokens)
        strengths = self.act_fn(products) * chosen_scores.softmax(dim=-1)
        mixed = torch.einsum("nk,nkd->nd", strengths, self.up_embed(experts))
        dense = self.down_proj(self.act_fn(self.gate_proj(tokens)) * self.up_proj(tokens))
        return (dense + mixed).view_as(hidden_states), router_logits.transpose(0, 1)


class DogeMoeForCausalLM(DogeForCausalLM):
    """Predicts the next token with experts. For inference; train with small_doge."""

    config_class = DogeMoeConfig
    config: DogeMoeConfig

    def __init__(self, config: DogeMoeConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.__class__ = CausalCDMoE

    def forward(self, *args: object, output_router_logits: bool | None = None, **kwargs: object) -> object:
        """Compute logits as in `transformers`, without the load-balancing loss.

        Raises:
            ValueError: router logits are asked for; `transformers` would compute the loss of its own routing.
        """
        if output_router_logits:
            raise ValueError("output_router_logits=True is for training: import small_doge before loading")
        return super().forward(*args, output_router_logits=False, **kwargs)
