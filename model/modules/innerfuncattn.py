"""The place of `small_doge.models.modules.innerfuncattn` in the first guides."""

from small_doge.models.modules.innerfuncattn import InnerFuncAttn


__all__ = ["InnerFuncAttn"]
