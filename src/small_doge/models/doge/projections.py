"""One product in place of several that read the same input."""

import torch
import torch.nn.functional as F
from torch import nn


# Below this many tokens (decoding), joining the weights costs more than it saves.
MIN_TOKENS = 64


def joint_linear(x: torch.Tensor, layers: tuple[nn.Linear, ...]) -> tuple[torch.Tensor, ...]:
    """The outputs of several linear layers for one input [..., D].

    The weights are joined on the fly, so that saved names stay those of the single layers. Layers that are wrapped
    (LoRA), quantised or partitioned (ZeRO-3), have hooks or a bias are called one by one.
    """
    if x.shape[:-1].numel() < MIN_TOKENS or not all(_is_plain(layer) for layer in layers):
        return tuple(layer(x) for layer in layers)
    weight = torch.cat([layer.weight for layer in layers])
    return F.linear(x, weight).split([layer.out_features for layer in layers], dim=-1)


def _is_plain(layer: nn.Module) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    return type(layer) is nn.Linear and layer.bias is None and not hooked and not hasattr(layer.weight, "ds_id")
