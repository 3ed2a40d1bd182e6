import pytest
import torch

from small_doge.ops import dynamic_mask_attention
from small_doge.ops.dynamic_mask_attention.fused import fused_attention

from .inputs import make_inputs


@pytest.mark.parametrize("level", [0.5, 4.0, 12.0])
def test_bfloat16_carries_the_score_without_loss(level):
    torch.manual_seed(1)
    query, key, value, score = (x.detach() for x in make_inputs(tokens=64, size=16, dtype=torch.float32))
    score = score * level
    half = [x.bfloat16() for x in (query, key, value)]
    exact = dynamic_mask_attention(*(x.float() for x in half), score, keep_window_size=64, backend="reference")
    actual = dynamic_mask_attention(*half, score, keep_window_size=64).float()
    assert (actual - exact).abs().max() < 0.02


def test_the_score_gets_its_gradient_through_the_key_dimension():
    inputs = make_inputs(tokens=9)
    assert torch.autograd.gradcheck(lambda *x: fused_attention(*x, scale=0.3), inputs)
