"""Muon: momentum whose matrices are orthogonalised before they are applied (https://kellerjordan.github.io/posts/muon/).

`torch.optim.Muon` does the same for one matrix at a time, always in bfloat16, which most CPUs only emulate, and it takes no
other parameters. This one batches matrices of one shape, works in the type that the device is fast in, and holds AdamW for
the other parameters, so that a run has one optimizer, one schedule and one state to save.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw

from ..utils.errors import UserError
from ..utils.hardware import has_fast_bf16


# Coefficients of the quintic iteration: the steepest slope at zero for which singular values still end near 1.
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
FIRST_MOMENTUM = 0.85  # where the warm-up of the momentum begins


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of matrices near 1 by a Newton-Schulz iteration; their singular vectors stay.

    Args:
        matrices: [N, rows, columns], of any floating type.
        steps: of the iteration. After five, singular values of at least a hundredth of the matrix's norm lie between
            0.6 and 1.3.

    Returns:
        As `matrices`, in float32, or in bfloat16 where the device has instructions for it; float64 stays float64.
    """
    x = matrices
    if x.dtype != torch.float64:
        x = x.to(torch.bfloat16 if has_fast_bf16(x.device.type) else torch.float32)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:  # so that the products with the transpose are the smaller ones
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NS_COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the groups that say `use_muon`, AdamW for the others.

    An orthogonalised update is scaled by the square root of rows over columns where that is above 1. Weight decay shrinks
    weights by `lr * weight_decay` a step in both kinds of groups, so that it follows the schedule.

    Args:
        params: parameters or groups. Parameters of a group with `use_muon` must be matrices.
        lr: learning rate.
        weight_decay: share of a weight that a step at a rate of 1 takes away.
        momentum: of Muon, with Nesterov's look ahead.
        momentum_warmup_steps: steps over which the momentum rises from 0.85.
        ns_steps: steps of the Newton-Schulz iteration.
        cautious_weight_decay: let Muon shrink a weight only where the update shrinks it too (arXiv:2510.12402).
        betas: of AdamW.
        eps: of AdamW.
        use_muon: for groups that do not say.

    Raises:
        UserError: a value out of its range, or a parameter that is no matrix in a group of Muon's.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        momentum_warmup_steps: int = 0,
        ns_steps: int = 5,
        cautious_weight_decay: bool = False,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        use_muon: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "momentum_warmup_steps": momentum_warmup_steps,
            "ns_steps": ns_steps,
            "cautious_weight_decay": cautious_weight_decay,
            "betas": betas,
            "eps": eps,
            "use_muon": use_muon,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one whose settings are wrong is not added."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except UserError:
            self.param_groups.pop()
            raise
        # By this name torch knows that the count of steps must be on the device of the weights when a state is loaded.
        group["fused"] = not group["use_muon"]

    @staticmethod
    def _check_group(group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay", "momentum_warmup_steps"):
            if not group[name] >= 0:
                raise UserError(f"{name}={group[name]} must be at least 0")
        for name, value in (("momentum", group["momentum"]), *(("betas", beta) for beta in group["betas"])):
            if not 0 <= value < 1:
                raise UserError(f"{name}={value} must be at least 0 and below 1")
        if group["ns_steps"] < 1:
            raise UserError(f"ns_steps={group['ns_steps']} must be at least 1")
        if group["use_muon"]:
            for parameter in group["params"]:
                if parameter.dim() != 2:
                    raise UserError(
                        f"Muon trains matrices, not a parameter of shape {tuple(parameter.shape)}: put it into a group "
                        "with use_muon=False, or split the parameters by small_doge.optim.split_parameters"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step by the gradients at hand; parameters without one stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["use_muon"]:
                self._step_muon(group, parameters)
            elif parameters:
                self._step_adamw(group, parameters)
        return loss

    def _step_muon(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        alike = defaultdict(list)
        for parameter in parameters:
            alike[parameter.shape, parameter.device, parameter.dtype].append(parameter)
        for (shape, *_), members in alike.items():
            updates = orthogonalize(
                torch.stack([self._average(group, member) for member in members]), group["ns_steps"]
            )
            rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update in zip(members, updates.to(members[0].dtype), strict=True):
                self._decay(group, parameter, update)
                parameter.add_(update, alpha=-rate)

    def _average(self, group: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor:
        """Take a gradient into the momentum; returns the momentum after a look ahead."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum = group["momentum"]
        if warmup := group["momentum_warmup_steps"]:  # reading a step that lies on a GPU waits for it
            done = min(1.0, state["step"].item() / warmup)
            momentum = min(momentum, FIRST_MOMENTUM + done * (momentum - FIRST_MOMENTUM))
        state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum_buffer"], momentum)

    @staticmethod
    def _decay(group: dict[str, Any], parameter: torch.Tensor, update: torch.Tensor) -> None:
        share = group["lr"] * group["weight_decay"]
        if share and group["cautious_weight_decay"]:
            parameter.addcmul_(parameter, (update * parameter > 0).to(parameter.dtype), value=-share)
        elif share:
            parameter.mul_(1 - share)

    def _step_adamw(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] |= {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            grads=[parameter.grad for parameter in parameters if parameter.grad is not None],
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
