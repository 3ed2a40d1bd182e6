"""Layers of the studies of experts, each beside its equations written as loops."""

import math

import pytest
import torch
from benchmarks.studies.expert_layers import PEER, PKM, ProductKeys, TopKMoE


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


def gate_best(scores: list[torch.Tensor], k: int) -> dict[int, torch.Tensor]:
    """The softmax of the k best scores, by their number."""
    best = sorted(range(len(scores)), key=lambda e: -scores[e].item())[:k]
    total = sum(torch.exp(scores[e]) for e in best)
    return {e: torch.exp(scores[e]) / total for e in best}


def score_product_keys(keys: ProductKeys, x: torch.Tensor, head: int) -> list[torch.Tensor]:
    """The scores of all entries for one token and head, from running statistics, without a shortcut."""
    size = keys.keys.shape[-1]
    query = keys.queries.weight @ x
    query = (query - keys.norm.running_mean) / torch.sqrt(keys.norm.running_var + keys.norm.eps)
    query = (query * keys.norm.weight + keys.norm.bias)[head * 2 * size : (head + 1) * 2 * size]
    first, second = query[:size], query[size:]
    count = keys.keys.shape[2]
    return [first @ keys.keys[head, 0, i] + second @ keys.keys[head, 1, j] for i in range(count) for j in range(count)]


def randomise(layer: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        for name, buffer in layer.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                buffer.normal_()
    return layer.double().eval()


def test_plain_mixture_sums_its_best_experts():
    layer = randomise(TopKMoE(hidden_size=6, num_experts=5, top_k=2, inner_size=3))
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for place in [(b, t) for b in range(2) for t in range(4)]:
        scores = [row @ x[place] for row in layer.router.weight]
        for e, weight in gate_best(scores, 2).items():
            inner = silu(layer.gate[e] @ x[place]) * (layer.up[e] @ x[place])
            expected[place] += weight * (layer.down[e] @ inner)
    torch.testing.assert_close(layer(x), expected)


def test_plain_mixture_counts_its_balance():
    layer = randomise(TopKMoE(hidden_size=6, num_experts=4, top_k=2, inner_size=3))
    x = torch.randn(7, 6, dtype=torch.float64)
    layer(x)
    chosen = [set(gate_best(list(layer.router.weight @ token), 2)) for token in x]
    probabilities = torch.stack([torch.softmax(layer.router.weight @ token, dim=0) for token in x])
    expected = 4 * sum(sum(e in c for c in chosen) / 14 * probabilities[:, e].mean() for e in range(4))
    torch.testing.assert_close(layer.balance_loss, expected)


def test_an_expert_that_no_token_chose_has_no_gradient_and_the_others_do():
    layer = randomise(TopKMoE(hidden_size=6, num_experts=3, top_k=1, inner_size=2))
    with torch.no_grad():
        layer.router.weight[2] = -layer.router.weight[:2].sum(dim=0)
    x = layer.router.weight[:2].detach().clone()
    layer(x).square().sum().backward()
    used = set(layer.chosen.flatten().tolist())
    assert used
    for e in range(3):
        assert bool(layer.down.grad[e].abs().sum() > 0) == (e in used)


@pytest.mark.parametrize("kind", [PKM, PEER])
def test_product_key_layers_sum_what_each_head_chooses(kind):
    layer = randomise(kind(hidden_size=6, num_experts=9, num_heads=2, query_dim=4, top_k=3))
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for place in [(b, t) for b in range(2) for t in range(3)]:
        for head in range(2):
            scores = score_product_keys(layer.retrieval, x[place], head)
            for e, weight in gate_best(scores, 3).items():
                if kind is PKM:
                    expected[place] += weight * layer.tables[0].weight[e]
                else:
                    neuron = silu(layer.tables[0].weight[e] @ x[place])
                    expected[place] += weight * neuron * layer.tables[1].weight[e]
    torch.testing.assert_close(layer(x), expected)


def test_queries_are_normalised_over_the_batch_while_training():
    keys = randomise(ProductKeys(hidden_size=6, num_entries=9, num_heads=2, query_dim=4, top_k=3)).train()
    tokens = torch.randn(50, 6, dtype=torch.float64)
    before = keys.norm.running_mean.clone()
    keys(tokens)
    queries = tokens @ keys.queries.weight.T
    torch.testing.assert_close(keys.norm.running_mean, 0.9 * before + 0.1 * queries.mean(dim=0))


def test_active_parameters_are_those_that_a_token_meets():
    assert TopKMoE(8, 5, 2, 3).active_parameters == 5 * 8 + 2 * 3 * 8 * 3
    queries_and_keys = 8 * 2 * 4 + 2 * 2 * 4 + 2 * 2 * math.isqrt(16) * 2
    assert PKM(8, 16, 2, 4, 3).active_parameters == queries_and_keys + 2 * 3 * 8
    assert PEER(8, 16, 2, 4, 3).active_parameters == queries_and_keys + 2 * 2 * 3 * 8
