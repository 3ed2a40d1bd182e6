"""Layers that can stand in place of Doge's feed-forward layer: a plain mixture of experts, PKM and PEER.

Shapes: N tokens, D hidden size, E experts, kappa = sqrt(E), h heads, k choices per head, d dimensions of a query.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from small_doge import ops
from small_doge.models.doge.feed_forward import DogeCDMoE, DogeMLP


INITIAL_DEVIATION = 0.02  # as Doge's own layers


class TopKMoE(nn.Module):
    """Sends each token to the k of E gated layers that a linear router scores highest (arXiv:1701.06538, section 2).

    y = sum over the chosen e of g_e * W_down[e] (silu(W_gate[e] x) * W_up[e] x), with g the softmax of the k best
    scores: the gate of that paper, equations 3 and 5, without its noise. `balance_loss`, of the last call, is equation
    4 of arXiv:2101.03961: E * sum over e of (share of choices) * (mean probability), 1 when balanced.

    Args:
        hidden_size: D.
        num_experts: E.
        top_k: k.
        inner_size: width of each expert, m. Gate and up are [E, m, D] and down is [E, D, m].
    """

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, inner_size: int) -> None:
        super().__init__()
        self.num_experts, self.top_k = num_experts, top_k
        self.router = nn.Linear(hidden_size, num_experts, bias=False)
        self.gate = nn.Parameter(torch.empty(num_experts, inner_size, hidden_size))
        self.up = nn.Parameter(torch.empty(num_experts, inner_size, hidden_size))
        self.down = nn.Parameter(torch.empty(num_experts, hidden_size, inner_size))
        for table in (self.gate, self.up, self.down):
            nn.init.normal_(table, std=INITIAL_DEVIATION)
        self.balance_loss = torch.zeros(())
        self.chosen: torch.Tensor | None = None

    @property
    def active_parameters(self) -> int:
        """Count the weights that a token is multiplied with."""
        return self.router.weight.numel() + self.top_k * 3 * self.gate[0].numel()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform hidden states [..., D] token by token."""
        tokens = x.reshape(-1, x.shape[-1])
        logits = self.router(tokens)
        scores, experts = logits.topk(self.top_k, dim=-1)
        self.chosen = experts.detach()
        counts = torch.bincount(experts.reshape(-1), minlength=logits.shape[-1])
        share = counts / experts.numel()
        self.balance_loss = len(counts) * torch.sum(share * logits.softmax(dim=-1).mean(dim=0))
        # Tokens sorted by expert, so that each expert is called once.
        order = experts.reshape(-1).argsort(stable=True)
        owner = order // self.top_k
        parts = tokens[owner].split(counts.tolist())
        # `unbind` gathers the gradients of all experts at once; an index per expert would add E whole tables.
        experts_weights = zip(self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        outputs = torch.cat(
            [
                F.linear(F.silu(F.linear(part, gate)) * F.linear(part, up), down)
                for part, (gate, up, down) in zip(parts, experts_weights, strict=True)
                if len(part)
            ]
        )
        weights = scores.softmax(dim=-1).reshape(-1)[order]
        return torch.zeros_like(tokens).index_add(0, owner, outputs * weights.unsqueeze(-1)).view_as(x)


class ProductKeys(nn.Module):
    """Chooses k of E entries per head by product keys (arXiv:1907.05242, section 3.1 and 3.2).

    A head's query, of d dimensions and batch-normalised as in that paper, is split in two halves. Entry i * kappa + j
    scores the product of the first half with key i of one set plus that of the second half with key j of another. The
    weights of the k best are their softmax.

    Args:
        hidden_size: D.
        num_entries: E, a square number.
        num_heads: h.
        query_dim: d, even. Keys are [h, 2, kappa, d / 2].
        top_k: k.
    """

    def __init__(self, hidden_size: int, num_entries: int, num_heads: int, query_dim: int, top_k: int) -> None:
        super().__init__()
        self.num_heads, self.top_k = num_heads, top_k
        self.queries = nn.Linear(hidden_size, num_heads * query_dim, bias=False)
        self.norm = nn.BatchNorm1d(num_heads * query_dim)
        keys = torch.randn(num_heads, 2, math.isqrt(num_entries), query_dim // 2)
        self.keys = nn.Parameter(keys * query_dim**-0.5)

    @property
    def active_parameters(self) -> int:
        """Count the weights that a token is multiplied with: all keys are scored."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose for tokens [N, D]; returns weights and entries, both [N, h * k]."""
        queries = self.norm(self.queries(tokens)).view(len(tokens), self.num_heads, 2, -1)
        scores = torch.einsum("nhpd,hpkd->nhpk", queries, self.keys)
        weights, entries = ops.route_tokens(scores.reshape(len(tokens) * self.num_heads, -1), self.top_k)
        return weights.view(len(tokens), -1), entries.view(len(tokens), -1)


class Memory(nn.Module):
    """Holds what layers share whose entries are chosen by product keys.

    Args:
        hidden_size: D.
        num_experts: E; of PKM, the entries of its memory.
        num_heads: h.
        query_dim: d.
        top_k: k.
    """

    num_tables: int  # [E, D] each, with a row for every entry

    def __init__(self, hidden_size: int, num_experts: int, num_heads: int, query_dim: int, top_k: int) -> None:
        super().__init__()
        self.retrieval = ProductKeys(hidden_size, num_experts, num_heads, query_dim, top_k)
        self.num_experts = num_experts
        self.tables = nn.ModuleList(nn.Embedding(num_experts, hidden_size) for _ in range(self.num_tables))
        self.chosen: torch.Tensor | None = None

    @property
    def active_parameters(self) -> int:
        """Count the weights that a token is multiplied with."""
        chosen = self.retrieval.num_heads * self.retrieval.top_k
        return self.retrieval.active_parameters + chosen * sum(table.embedding_dim for table in self.tables)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform hidden states [..., D] token by token."""
        tokens = x.reshape(-1, x.shape[-1])
        weights, self.chosen = self.retrieval(tokens)
        return self.mix(tokens, weights, self.chosen).view_as(x)

    def mix(self, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Compute the output [N, D] for tokens [N, D] from the chosen entries and their weights, both [N, h * k]."""
        raise NotImplementedError


class PKM(Memory):
    """Sums the values that product keys choose (product-key memory, arXiv:1907.05242, equation 3).

    y = sum over heads and chosen e of g_e * V_e, with one table V [E, D] for all heads.
    """

    num_tables = 1

    def mix(self, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        (values,) = self.tables
        return F.embedding_bag(chosen, values.weight, per_sample_weights=weights, mode="sum")


class PEER(Memory):
    """Mixes experts of one neuron that product keys choose (PEER, arXiv:2407.04153, section 2.1 and 2.2).

    y = sum over heads and chosen e of g_e * silu(<x, U_e>) * V_e, with tables U, V [E, D] shared by all heads.
    """

    num_tables = 2

    def mix(self, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        down_embed, up_embed = self.tables
        return ops.mix_experts(tokens, down_embed.weight, up_embed.weight, chosen, weights, F.silu)


class WithDense(nn.Module):
    """Adds the output of another layer to that of a dense gated one, as CDMoE does with its experts."""

    def __init__(self, dense: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.dense, self.layer = dense, layer

    @property
    def active_parameters(self) -> int:
        """Count the weights that a token is multiplied with."""
        return count_active_parameters(self.dense) + count_active_parameters(self.layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform hidden states [..., D] token by token."""
        return self.dense(x) + self.layer(x)


def count_active_parameters(layer: nn.Module) -> int:
    """Count the weights of a layer that one token is multiplied with."""
    if isinstance(layer, DogeCDMoE):
        projections = sum(p.weight.numel() for p in (layer.gate_proj, layer.up_proj, layer.down_proj))
        return projections + layer.router_gate.weight.numel() + 2 * layer.top_k * layer.up_embed.embedding_dim
    if isinstance(layer, DogeMLP):
        return sum(parameter.numel() for parameter in layer.parameters())
    return layer.active_parameters
