import pytest
import torch
import torch.nn.functional as F

from small_doge.ops.elementwise import rms_norm, silu_mul


def test_norm_and_its_gradient_equal_the_plain_form():
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    actual, expected = rms_norm(x, weight, 1e-6), F.rms_norm(x, (8,), weight, 1e-6)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn_like(actual)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (x, weight), upstream), torch.autograd.grad(expected, (x, weight), upstream)
    )
    assert torch.autograd.gradcheck(lambda a, b: rms_norm(a, b, 1e-6), (x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_keeps_the_type_and_survives_zeros(dtype):
    x = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
    y = rms_norm(x, torch.ones(8), 1e-6)
    y.sum().backward()
    assert y.dtype == dtype and x.grad.isfinite().all()


def test_gating_and_its_gradient_equal_the_plain_form():
    gate, up = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.testing.assert_close(silu_mul(gate, up), F.silu(gate) * up)
    assert torch.autograd.gradcheck(silu_mul, (gate, up))
