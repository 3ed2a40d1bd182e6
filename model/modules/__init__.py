"""The modules that the first guides import from here."""

from small_doge.models.modules import CDMoE, InnerFuncAttn


__all__ = ["CDMoE", "InnerFuncAttn"]
