"""Which optimizer trains which parameter of a Doge."""

from typing import Any

from torch import nn


# Weights of layers that mix whole vectors. Beside them, `dt_proj` is a handful of vectors, and the tables of experts and
# their router are rows that are looked up; an orthogonalised update would tie rows together that have nothing in common.
MUON_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EMBEDDINGS = ("embed_tokens", "lm_head")


def is_muon_parameter(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether Muon trains a parameter of this name, such as `model.layers.0.mlp.up_proj.weight`."""
    layer, _, kind = name.rpartition(".")
    return kind == "weight" and parameter.dim() == 2 and layer.rpartition(".")[2] in MUON_LAYERS


def split_parameters(
    model: nn.Module, muon: dict[str, Any], embeddings: dict[str, Any], others: dict[str, Any]
) -> list[dict[str, Any]]:
    """Split what is trained of a model into the groups of `small_doge.optim.Muon`.

    Args:
        model: a Doge, or an adapter around it.
        muon: settings of the matrices of attention and feed-forward layers.
        embeddings: settings of the embedding and the head.
        others: settings of the rest, such as norms, scales of residuals, `A`, `dt_proj`, routers and tables of experts.
            Vectors are not decayed.

    Returns:
        Groups with `use_muon`, without those that would be empty.
    """
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {**others, "use_muon": False},
        {**others, "use_muon": False, "weight_decay": 0.0},
        {**embeddings, "use_muon": False},
        {**muon, "use_muon": True},
    ]
    for group in groups:
        group["params"] = []
    for name, parameter in parameters:
        if is_muon_parameter(name, parameter):
            kind = 3
        elif any(part in EMBEDDINGS for part in name.split(".")):
            kind = 2
        else:
            kind = 0 if parameter.dim() > 1 else 1
        groups[kind]["params"].append(parameter)
    return [group for group in groups if group["params"]]
