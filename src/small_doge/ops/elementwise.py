"""Normalisation and gating that keep only their inputs for the backward pass, and recompute the rest.

Shapes: D the last dimension, the one that is normalised.
"""

from typing import Any

import torch
import torch.nn.functional as F


def _normalise(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise x [..., D]; returns the result and 1 / rms, [..., 1] in float32 or better."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (wide * rstd).mul_(weight).to(x.dtype), rstd


class _RMSNorm(torch.autograd.Function):
    """Keeps the input and one number per row; autograd would keep the normalised input as well."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        normalised, rstd = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        grad = grad.to(rstd.dtype)
        normal = x * rstd
        grad_weight = (grad * normal).flatten(0, -2).sum(dim=0)
        scaled = grad * weight
        along = torch.linalg.vecdot(scaled, normal).unsqueeze(-1).div_(x.shape[-1])
        grad_x = scaled.addcmul_(normal, along, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Compute x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv:1910.07467), in float32 or better.

    Args:
        x: [..., D].
        weight: [D].
        eps: keeps a row of zeros finite.

    Returns:
        [..., D] in the type of x. On a GPU, PyTorch's own kernel computes it: faster, and it keeps as little.
    """
    if x.is_cuda or torch.compiler.is_compiling():
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    if not torch.is_grad_enabled():
        return _normalise(x, weight, eps)[0]
    return _RMSNorm.apply(x, weight, eps)


class _SiluMul(torch.autograd.Function):
    """Keeps gate and up; autograd would keep silu(gate) as well."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, grad_up


def silu_mul(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up of equal shapes, keeping gate and up for the backward pass but not silu(gate)."""
    if not torch.is_grad_enabled():
        return F.silu(gate).mul_(up)
    if torch.compiler.is_compiling():
        return F.silu(gate) * up
    return _SiluMul.apply(gate, up)
