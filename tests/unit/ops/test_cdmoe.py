import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.ops import cdmoe, compute_load_balancing_loss, mix_experts, route_tokens


def all_scores(logits):
    x, y = logits.chunk(2, dim=-1)
    return (x[:, :, None] + y[:, None, :]).flatten(1)


@settings(max_examples=50, deadline=None)
@given(num_keys=st.integers(1, 9), share=st.floats(0.01, 1.0), seed=st.integers(0, 10_000))
def test_routing_is_exact(num_keys, share, seed):
    torch.manual_seed(seed)
    top_k = max(1, round(share * num_keys**2))
    logits = torch.randn(7, 2 * num_keys, dtype=torch.float64)
    weights, experts = route_tokens(logits, top_k)
    scores, chosen = all_scores(logits).topk(top_k)
    assert torch.equal(experts.sort().values, chosen.sort().values)
    torch.testing.assert_close(weights, scores.softmax(-1).float().double())
    torch.testing.assert_close(weights.sum(-1), torch.ones(7, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_token_is_routed_by_its_own_logits():
    logits = torch.randn(6, 16)
    alone = torch.stack([route_tokens(row[None], 3)[1][0] for row in logits])
    assert torch.equal(route_tokens(logits, 3)[1], alone)


@pytest.mark.parametrize("budget", [1, 2**22])
def test_mixing_equals_the_formula_and_its_gradient(monkeypatch, budget):
    monkeypatch.setattr(cdmoe, "GATHER_BUDGET", budget)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    down, up = (torch.randn(16, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    experts = torch.stack([torch.randperm(16)[:3] for _ in range(5)])
    weights = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)

    actual = mix_experts(x, down, up, experts, weights)
    gates = torch.nn.functional.silu((down[experts] * x[:, None]).sum(-1)) * weights
    expected = (gates[..., None] * up[experts]).sum(1)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn_like(actual)
    inputs = (x, down, up, weights)
    torch.testing.assert_close(
        torch.autograd.grad(actual, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    )


def test_balance_loss_equals_the_sum_over_all_experts():
    logits = tuple(torch.randn(11, 8) for _ in range(3))
    mask = torch.tensor([1] * 8 + [0] * 3)
    expected = []
    for layer in logits:
        scores = all_scores(layer[:8])
        share = torch.zeros(16).index_add_(0, scores.topk(2).indices.flatten(), torch.ones(16)) / 16
        expected.append(16 * (share * scores.softmax(-1).mean(0)).sum())
    torch.testing.assert_close(compute_load_balancing_loss(logits, 2, mask), torch.stack(expected).mean())


def test_balance_loss_is_one_when_balanced_and_large_when_not():
    even = compute_load_balancing_loss((torch.randn(20_000, 8) * 0.01,), 2)
    skewed = torch.zeros(100, 8)
    skewed[:, 0] = skewed[:, 4] = 10.0
    assert abs(even.item() - 1) < 0.05
    assert compute_load_balancing_loss((skewed,), 1).item() > 10


def test_balance_loss_trains_the_router():
    logits = torch.randn(50, 8, requires_grad=True)
    compute_load_balancing_loss((logits,), 2).backward()
    assert logits.grad.abs().sum() > 0
