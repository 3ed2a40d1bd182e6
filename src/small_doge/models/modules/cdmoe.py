"""Cross Domain Mixture of Experts with several retrieval heads, as a module of its own (arXiv:2412.11834).

Shapes: B batch, T tokens.
"""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN

from ...ops import mix_experts, route_tokens
from ...utils.errors import UserError


class CDMoE(nn.Module):
    """Adds to a dense gated layer experts of one neuron each, retrieved by product keys (arXiv:1907.05242).

    Each head makes a query of `d_private_expert` dimensions from a token and splits it in two halves. Half p scores
    sqrt(n_experts) keys; expert i * sqrt(n_experts) + j scores the sum of key i in the first half and j in the second.
    The outputs of the heads are summed.

    Args:
        d_model: width of input and output.
        act_fn: name of the activation.
        d_cross_domain: inner width of the dense layer.
        d_private_expert: dimensions of a query, even.
        n_experts: experts, a square number.
        n_experts_heads: retrieval heads.
        n_experts_per_head: experts a head chooses.

    Raises:
        UserError: sizes that do not fit.
    """

    def __init__(
        self,
        d_model: int,
        act_fn: str,
        d_cross_domain: int,
        d_private_expert: int,
        n_experts: int,
        n_experts_heads: int,
        n_experts_per_head: int,
    ) -> None:
        super().__init__()
        num_keys = math.isqrt(n_experts)
        if num_keys**2 != n_experts:
            raise UserError(
                f"n_experts={n_experts} must be a square number; the nearest are {num_keys**2} and {(num_keys + 1) ** 2}"
            )
        if d_private_expert % 2:
            raise UserError(f"d_private_expert={d_private_expert} must be even: it is split in two halves")
        if not 1 <= n_experts_per_head <= n_experts:
            raise UserError(f"n_experts_per_head={n_experts_per_head} must lie between 1 and n_experts={n_experts}")
        self.n_experts_heads, self.n_experts_per_head = n_experts_heads, n_experts_per_head
        self.act_fn = ACT2FN[act_fn]
        self.gate_proj = nn.Linear(d_model, d_cross_domain, bias=False)
        self.up_proj = nn.Linear(d_model, d_cross_domain, bias=False)
        self.down_proj = nn.Linear(d_cross_domain, d_model, bias=False)
        self.queries = nn.Linear(d_model, d_private_expert * n_experts_heads, bias=False)
        self.keys = nn.Parameter(
            torch.randn(n_experts_heads, num_keys, 2, d_private_expert // 2) * d_private_expert**-0.5
        )
        self.down_embed = nn.Embedding(n_experts, d_model)
        self.up_embed = nn.Embedding(n_experts, d_model)
        for table in (self.down_embed, self.up_embed):
            nn.init.normal_(table.weight, std=d_model**-0.5)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform hidden states [B, T, d_model] token by token."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        queries = self.queries(tokens).view(len(tokens), self.n_experts_heads, 2, -1)
        scores = torch.einsum("nhpd,hkpd->nhpk", queries, self.keys)
        weights, experts = route_tokens(scores.flatten(2).flatten(0, 1), self.n_experts_per_head)
        mixed = mix_experts(
            tokens,
            self.down_embed.weight,
            self.up_embed.weight,
            experts.view(len(tokens), -1),
            weights.view(len(tokens), -1),
            self.act_fn,
        )
        dense = self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
        return dense + mixed.view_as(hidden_states)
