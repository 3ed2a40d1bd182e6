"""The feed-forward layer of Doge, and the one with retrieved experts beside it.

Shapes: B batch, T tokens, D hidden_size, E num_experts, kappa = sqrt(E).
"""

import torch
from torch import nn
from transformers.activations import ACT2FN

from ... import ops
from ...ops.elementwise import silu_mul
from .configuration_doge import DogeConfig


# Tokens that the feed-forward layer takes at once when no gradient is wanted. Its inner tensors, several times as wide
# as the residual stream, then stay small enough for the allocator to reuse: long prompts need less memory and time.
TOKENS_AT_ONCE = 2048


class DogeMLP(nn.Module):
    """Computes the gated feed-forward layer W_down(act(W_gate x) * W_up x) (arXiv:2002.05202)."""

    def __init__(self, config: DogeConfig) -> None:
        super().__init__()
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)
        self.act_fn = ACT2FN[config.hidden_act]
        self.is_silu = config.hidden_act in ("silu", "swish")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform hidden states [..., T, D] token by token."""
        if not torch.is_grad_enabled() and x.shape[-2] > TOKENS_AT_ONCE and not torch.compiler.is_compiling():
            return torch.cat([self._gate_and_project(part) for part in x.split(TOKENS_AT_ONCE, dim=-2)], dim=-2)
        return self._gate_and_project(x)

    def _gate_and_project(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        gated = silu_mul(gate, up) if self.is_silu else self.act_fn(gate) * up
        return self.down_proj(gated)


class DogeCDMoE(DogeMLP):
    """Adds `num_experts` experts of one neuron each to the gated layer (Cross Domain Mixture of Experts).

    As in arXiv:2412.11834, the 2 * kappa router logits of a token are split in two halves r_x and r_y, and expert
    i * kappa + j scores r_x[i] + r_y[j]. `transformers` splits another axis, which mixes tokens; `legacy_routing`
    reproduces that.
    """

    def __init__(self, config: DogeConfig) -> None:
        super().__init__(config)
        self.num_keys = round(config.num_experts**0.5)
        self.top_k = config.num_experts_per_tok
        self.legacy_routing = config.legacy_routing
        self.router_gate = nn.Linear(config.hidden_size, self.num_keys * 2, bias=False)
        self.down_embed = nn.Embedding(config.num_experts, config.hidden_size)
        self.up_embed = nn.Embedding(config.num_experts, config.hidden_size)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Transform hidden states [B, T, D]; returns them and the router logits [B * T, 2 * kappa]."""
        tokens = x.reshape(-1, x.shape[-1])
        router_logits = self.router_gate(tokens)
        if self.legacy_routing:
            # The view runs across tokens: both halves of a token's logits then come from other tokens.
            halves = router_logits.view(2, len(tokens), -1)
            router_logits = torch.cat((halves[0], halves[1]), dim=-1)
        weights, experts = ops.route_tokens(router_logits, self.top_k)
        mixed = ops.mix_experts(tokens, self.down_embed.weight, self.up_embed.weight, experts, weights, self.act_fn)
        return super().forward(x) + mixed.view_as(x), router_logits
