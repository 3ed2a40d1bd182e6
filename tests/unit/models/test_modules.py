import pytest
import torch

from small_doge.models.modules.cdmoe import CDMoE
from small_doge.models.modules.innerfuncattn import InnerFuncAttn


def make_experts(**changes):
    settings = {
        "d_model": 64,
        "act_fn": "silu",
        "d_cross_domain": 256,
        "d_private_expert": 64,
        "n_experts": 64,
        "n_experts_heads": 2,
        "n_experts_per_head": 3,
    }
    return CDMoE(**{**settings, **changes})


def make_attention(**changes):
    settings = {"d_model": 64, "n_heads": 4, "n_inner_values": 16, "max_position_embeddings": 32, "layer_idx": 0}
    return InnerFuncAttn(**{**settings, **changes})


def test_experts_equal_the_formula_head_by_head():
    module = make_experts().double()
    x = torch.randn(2, 5, 64, dtype=torch.float64)
    tokens = x.reshape(10, 64)
    expected = module.down_proj(torch.nn.functional.silu(module.gate_proj(tokens)) * module.up_proj(tokens))
    queries = module.queries(tokens).view(10, 2, 2, 32)
    for n in range(10):
        for h in range(2):
            half_x, half_y = (module.keys[h, :, p] @ queries[n, h, p] for p in range(2))
            best = (half_x[:, None] + half_y[None, :]).flatten().topk(3)
            weights = best.values.softmax(-1)
            for weight, e in zip(weights, best.indices, strict=True):
                gate = torch.nn.functional.silu(tokens[n] @ module.down_embed.weight[e])
                expected[n] += weight * gate * module.up_embed.weight[e]
    torch.testing.assert_close(module(x), expected.view(2, 5, 64), atol=1e-6, rtol=1e-5)


def test_every_parameter_of_the_experts_learns():
    module = make_experts()
    module(torch.randn(4, 32, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_experts": 60}, "n_experts=60 must be a square number; the nearest are 49 and 64"),
        ({"d_private_expert": 7}, "d_private_expert=7 must be even"),
        ({"n_experts_per_head": 0}, "n_experts_per_head=0 must lie"),
    ],
)
def test_bad_sizes_of_the_experts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_experts(**change)


def test_attention_is_causal_and_its_retrieval_learns():
    module = make_attention()
    x = torch.rand(2, 16, 64)
    y, _ = module(x, torch.ones(2, 16))
    changed = x.clone()
    changed[:, 10:] += 1
    torch.testing.assert_close(module(changed)[0][:, :10], y[:, :10])
    y.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    assert module.v_queries.grad.abs().sum() > 0


def test_attention_goes_on_from_its_cache():
    module = make_attention()
    x = torch.randn(1, 12, 64)
    whole, _ = module(x)
    first, cache = module(x[:, :7])
    second, _ = module(x[:, 7:], past_key_values=cache)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-5, rtol=1e-5)


def test_attention_depends_on_distance_not_on_place():
    module = make_attention()
    x = torch.randn(1, 6, 64)
    padded = torch.cat([torch.randn(1, 5, 64), x], dim=1)
    mask = (torch.arange(11) >= 5).float()[None]
    torch.testing.assert_close(module(padded, mask)[0][:, 5:], module(x)[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(module(padded, mask)[0][:, :5], torch.zeros(1, 5, 64))


def test_attention_refuses_more_positions_than_it_has():
    with pytest.raises(ValueError, match="33 tokens are more than max_position_embeddings=32"):
        make_attention()(torch.randn(1, 33, 64))
