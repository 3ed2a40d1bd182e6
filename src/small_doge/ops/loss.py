"""Cross-entropy of a linear head that never holds all logits.

Shapes: N tokens, n tokens of a chunk, D hidden_size, V vocabulary.
"""

import importlib.util
from typing import Any

import torch
import torch.nn.functional as F


# Logits held at once (2**24 floats are 64 MB).
LOGITS_BUDGET = 2**24


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Compute the mean cross-entropy of `hidden @ weight.T` against `targets`, and its gradient, in chunks of tokens.

    Args:
        hidden: [N, D].
        weight: [V, D].
        targets: [N]; entries equal to `ignore_index` do not count.
        num_items_in_batch: divide the sum by this in place of the number of counted targets, so that the parts of an
            accumulated batch add up to the loss of the whole.
        ignore_index: the target that does not count.
        chunk_size: tokens per chunk; by default as many as `LOGITS_BUDGET` allows.

    Returns:
        A float32 scalar; 0 when nothing counts, where PyTorch's mean would be NaN.
    """
    if not torch.compiler.is_compiling():
        counted = targets != ignore_index
        if not bool(counted.all()):
            hidden, targets = hidden[counted], targets[counted]
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        if hidden.is_cuda and importlib.util.find_spec("liger_kernel") is not None:
            total = _liger_sum(hidden.to(dtype), weight.to(dtype), targets, ignore_index)
        else:
            chunk_size = chunk_size or max(64, LOGITS_BUDGET // weight.shape[0])
            total = _ChunkedCrossEntropy.apply(
                hidden, weight, targets, ignore_index, chunk_size, dtype, torch.compiler.is_compiling()
            )
    return total / count_targets(targets, num_items_in_batch, ignore_index)


def cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Compute the mean cross-entropy of given logits [N, V], with arguments and result of `linear_cross_entropy`."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="sum")
    return total / count_targets(targets, num_items_in_batch, ignore_index)


def count_targets(
    targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None, ignore_index: int
) -> torch.Tensor:
    """Return the divisor of a sum over targets: `num_items_in_batch`, or the number of counted targets; at least 1."""
    if num_items_in_batch is None:
        return (targets != ignore_index).sum().clamp(min=1)
    return torch.as_tensor(num_items_in_batch, device=targets.device).clamp(min=1)


def _liger_sum(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, ignore_index: int) -> torch.Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    result = liger_fused_linear_cross_entropy(hidden, weight, targets, ignore_index=ignore_index, reduction="sum")
    return (result[0] if isinstance(result, tuple) else result).float()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes gradients along with the loss, while a chunk's logits exist: three matrix products, not four."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        ignore_index: int,
        chunk_size: int,
        dtype: torch.dtype,
        has_ignored: bool,
    ) -> torch.Tensor:
        matrix = weight.to(dtype)
        total = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=total.dtype) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), chunk_size):
            part = slice(start, start + chunk_size)
            rows, goal = hidden[part].to(dtype), targets[part]
            logits = (rows @ matrix.T).to(total.dtype)
            if grad_hidden is None and grad_weight is None:
                total += F.cross_entropy(logits, goal, ignore_index=ignore_index, reduction="sum")
                continue
            loss, grad = _loss_and_gradient(logits, goal, ignore_index, has_ignored)
            total += loss
            grad = grad.to(dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ matrix
            if grad_weight is not None and dtype == grad_weight.dtype:
                grad_weight.addmm_(grad.T, rows)
            elif grad_weight is not None:
                grad_weight += grad.T @ rows
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad_output.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad_output).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None, None, None


def _loss_and_gradient(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int, has_ignored: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the summed cross-entropy of logits [n, V], and softmax(logits) - one_hot(targets) in their memory."""
    ignored = targets == ignore_index
    safe = targets.masked_fill(ignored, 0).unsqueeze(-1)
    target_logit, largest = logits.gather(1, safe), logits.amax(dim=-1, keepdim=True)
    grad = torch.softmax(logits, dim=-1, out=logits)
    # The largest probability never underflows, so it gives the normaliser without another pass of exponentials.
    log_normaliser = largest - grad.amax(dim=-1, keepdim=True).log()
    loss = (log_normaliser - target_logit).masked_fill(ignored.unsqueeze(-1), 0.0).sum()
    grad.scatter_add_(1, safe, torch.full_like(safe, -1, dtype=grad.dtype))
    if has_ignored:
        grad.masked_fill_(ignored.unsqueeze(-1), 0.0)
    return loss, grad
