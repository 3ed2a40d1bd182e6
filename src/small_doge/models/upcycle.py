"""Grows a dense checkpoint into a mixture of experts with the same outputs."""

import torch

from ..utils.errors import UserError
from .doge.configuration_doge import DogeConfig
from .doge.modeling_doge import DogeForCausalLM


def upcycle_to_moe(
    model: DogeForCausalLM,
    num_experts: int,
    num_experts_per_tok: int,
    router_aux_loss_coef: float = 0.001,
    seed: int = 0,
) -> DogeForCausalLM:
    """Add a router and expert tables to every feed-forward layer of a copy (arXiv:2412.11834).

    The table `up_embed`, which the experts' outputs are multiplied by, starts at zero: the logits are those of the
    dense model until training goes on.

    Args:
        model: dense.
        num_experts: E, a square number.
        num_experts_per_tok: k.
        router_aux_loss_coef: weight of the load-balancing loss.
        seed: for the new weights; the global random state stays as it is.

    Returns:
        A new model in the type and on the device of the old one.

    Raises:
        UserError: the model has experts already, or E or k do not fit.
    """
    if model.config.is_moe:
        raise UserError(f"the model has {model.config.num_experts} experts already; upcycling starts from a dense one")
    settings = model.config.to_dict()
    settings.pop("model_type", None)
    settings.update(
        is_moe=True,
        num_experts=num_experts,
        num_experts_per_tok=num_experts_per_tok,
        router_aux_loss_coef=router_aux_loss_coef,
    )
    config = DogeConfig(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grown = DogeForCausalLM(config).to(model.dtype)
    # The cast rounded the frequencies too, which a loaded model keeps in float32 whatever its type. The original ones, since
    # a dynamic RoPE may have turned the others for a long text.
    frequencies = model.model.rotary_emb.original_inv_freq
    for name in ("inv_freq", "original_inv_freq"):
        setattr(grown.model.rotary_emb, name, torch.nn.Buffer(frequencies.clone(), persistent=False))
    for layer in grown.model.layers:
        torch.nn.init.zeros_(layer.mlp.up_embed.weight)
    missing, unexpected = grown.load_state_dict(model.state_dict(), strict=False)
    new = ("router_gate.weight", "down_embed.weight", "up_embed.weight")
    assert not unexpected and all(name.endswith(new) for name in missing), (missing, unexpected)
    grown.generation_config = model.generation_config
    return grown.to(model.device)
