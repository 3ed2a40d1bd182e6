"""Cross Domain Mixture of Experts: retrieval of tiny experts and their mixing (arXiv:2412.11834, section on CDMoE).

Shapes: N tokens, D hidden size, E experts, kappa = sqrt(E), k experts per token. Expert e = i * kappa + j.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F


# Rows of expert tables gathered at once, times D: bounds the memory of a call (2**22 floats are 16 MB).
GATHER_BUDGET = 2**22


@cache
def candidate_pairs(top_k: int, num_keys: int) -> tuple[list[int], list[int]]:
    """List the pairs of ranks (a, b) that can hold one of the k best sums r_x + r_y, as two lists.

    The (a + 1)(b + 1) pairs of ranks up to a and up to b have sums at least as large, so only pairs for which that
    product is at most k can be among the k best.
    """
    pairs = [(a, b) for a in range(min(top_k, num_keys)) for b in range(min(top_k // (a + 1), num_keys))]
    return [a for a, _ in pairs], [b for _, b in pairs]


def route_tokens(router_logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the k experts of each token by the token's own logits (product keys, arXiv:1907.05242).

    The score of expert i * kappa + j is r_x[i] + r_y[j]. Only pairs of the best of each half can win, so the search is
    exact and far cheaper than E sums.

    Args:
        router_logits: [N, 2 * kappa], r_x then r_y.
        top_k: k <= E.

    Returns:
        Weights [N, k], a softmax over the chosen scores, and expert numbers [N, k].
    """
    num_keys = router_logits.shape[-1] // 2
    best = min(top_k, num_keys)
    half_x, half_y = router_logits.split(num_keys, dim=-1)
    score_x, index_x = half_x.topk(best, dim=-1)
    score_y, index_y = half_y.topk(best, dim=-1)
    rank_x, rank_y = candidate_pairs(top_k, num_keys)
    scores, chosen = (score_x[:, rank_x] + score_y[:, rank_y]).topk(top_k, dim=-1)
    experts = (index_x[:, rank_x] * num_keys + index_y[:, rank_y]).gather(-1, chosen)
    return scores.softmax(dim=-1, dtype=torch.float32).to(router_logits.dtype), experts


class _ExpertProducts(torch.autograd.Function):
    """Computes <x_n, U_e> for the chosen experts, without keeping the gathered rows for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, table: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden, table, experts)
        products = hidden.new_empty(experts.shape)
        step = max(1, GATHER_BUDGET // (experts.shape[1] * hidden.shape[1]))
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            rows = F.embedding(experts[part], table)
            torch.bmm(rows, hidden[part].unsqueeze(-1), out=products[part].unsqueeze(-1))
        return products

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, table, experts = ctx.saved_tensors
        grad = grad.contiguous()
        grad_hidden = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_hidden = F.embedding_bag(experts, table, per_sample_weights=grad, mode="sum")
        if ctx.needs_input_grad[1]:
            grad_table = _scatter_rows(hidden, experts, grad, len(table))
        return grad_hidden, grad_table, None


def _scatter_rows(rows: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Sum weights[n, m] * rows[n] into row experts[n, m] of a new [E, D] table, a bounded part at a time."""
    table = torch.zeros(
        num_experts, rows.shape[1], dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device
    )
    step = max(1, GATHER_BUDGET // (experts.shape[1] * rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        weighted = weights[part].unsqueeze(-1) * rows[part].unsqueeze(1)
        table.index_add_(0, experts[part].reshape(-1), weighted.reshape(-1, rows.shape[1]).to(table.dtype))
    return table.to(rows.dtype)


def mix_experts(
    hidden: torch.Tensor,
    down_embed: torch.Tensor,
    up_embed: torch.Tensor,
    experts: torch.Tensor,
    weights: torch.Tensor,
    activation: Callable[[torch.Tensor], torch.Tensor] = F.silu,
) -> torch.Tensor:
    """Sum g_e * act(<x, U_e>) * V_e over the chosen experts of each token (arXiv:2412.11834).

    Beside the result, the memory is bounded by a constant (`GATHER_BUDGET`).

    Args:
        hidden: [N, D].
        down_embed: U, [E, D].
        up_embed: V, [E, D].
        experts: [N, k], expert numbers from `route_tokens`.
        weights: g, [N, k].
        activation: applied to each product.

    Returns:
        [N, D] in the type of `hidden`.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        down_embed, up_embed = down_embed.to(hidden.dtype), up_embed.to(hidden.dtype)
        products = _ExpertProducts.apply(hidden, down_embed, experts)
        gates = activation(products) * weights.to(hidden.dtype)
        return F.embedding_bag(experts, up_embed, per_sample_weights=gates, mode="sum")


def compute_load_balancing_loss(
    router_logits: tuple[torch.Tensor, ...], top_k: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute E * sum_e f_e * p_e, averaged over layers (Switch Transformer, arXiv:2101.03961, eq. 4 to 6).

    f_e is the share of choices that fell on expert e, p_e its mean probability. Scores add, so the softmax over all
    experts factorises: p is the mean outer product of two softmaxes, and no [N, E] tensor exists.

    Args:
        router_logits: one [N, 2 * kappa] per layer.
        top_k: k.
        mask: [N] or [B, T] with B * T = N, true for tokens that count.

    Returns:
        A float32 scalar, 1 when the experts are balanced.
    """
    losses = []
    for logits in router_logits:
        logits = logits.float() if mask is None else logits[mask.reshape(-1).bool()].float()
        num_keys = logits.shape[-1] // 2
        half_x, half_y = logits.split(num_keys, dim=-1)
        probability = half_x.softmax(dim=-1).T @ half_y.softmax(dim=-1) / len(logits)
        experts = route_tokens(logits.detach(), top_k)[1].reshape(-1)
        share = torch.bincount(experts, minlength=num_keys**2).to(probability.dtype) / experts.numel()
        losses.append(num_keys**2 * torch.sum(share * probability.reshape(-1)))
    return torch.stack(losses).mean()
