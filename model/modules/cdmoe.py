"""The place of `small_doge.models.modules.cdmoe` in the first guides."""

from small_doge.models.modules.cdmoe import CDMoE


__all__ = ["CDMoE"]
