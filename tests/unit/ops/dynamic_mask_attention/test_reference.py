import torch

from small_doge.ops.dynamic_mask_attention.masking import causal_mask
from small_doge.ops.dynamic_mask_attention.reference import reference_attention, select_keys

from .inputs import make_inputs


def test_a_dropped_key_never_comes_back():
    score = torch.randn(1, 1, 64).exp()
    kept = select_keys(score, torch.ones(64, 64, dtype=torch.bool).tril()[None, None], 9)[0, 0]
    for i in range(63):
        newcomers = kept[i + 1] & ~kept[i]
        assert set(newcomers.nonzero().flatten().tolist()) <= {i + 1}


def test_weights_are_zero_outside_the_kept_sets_and_sum_to_one_inside():
    query, key, value, score = make_inputs(tokens=12)
    allowed = causal_mask(12, None, None, query.device)
    output, weights = reference_attention(query, key, value, score, allowed, 4, 0.3)
    kept = select_keys(score, allowed, 4).repeat_interleave(2, dim=1)
    assert torch.equal(weights > 0, kept)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    torch.testing.assert_close(output, weights @ value.repeat_interleave(2, dim=1))
