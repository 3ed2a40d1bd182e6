"""Standalone modules of the first release of Doge."""

from .cdmoe import CDMoE
from .innerfuncattn import InnerFuncAttn


__all__ = ["CDMoE", "InnerFuncAttn"]
