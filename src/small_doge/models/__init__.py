"""Doge models, their configuration, bounded cache and growth into experts.

Its names are imported when they are asked for: the configuration alone needs no model.
"""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names


if TYPE_CHECKING:
    from .cache import DynamicMaskCache
    from .doge.configuration_doge import DogeConfig, DogeMoeConfig
    from .doge.modeling_doge import DogeForCausalLM, DogeForSequenceClassification, DogeModel, DogePreTrainedModel
    from .loading import load_model
    from .presets import PRESETS
    from .registration import register_auto_classes
    from .upcycle import upcycle_to_moe

__all__ = [
    "PRESETS",
    "DogeConfig",
    "DogeForCausalLM",
    "DogeForSequenceClassification",
    "DogeModel",
    "DogeMoeConfig",
    "DogePreTrainedModel",
    "DynamicMaskCache",
    "load_model",
    "register_auto_classes",
    "upcycle_to_moe",
]

__getattr__ = lazy_names(
    __name__,
    {
        "PRESETS": ".presets",
        "DogeConfig": ".doge.configuration_doge",
        "DogeForCausalLM": ".doge.modeling_doge",
        "DogeForSequenceClassification": ".doge.modeling_doge",
        "DogeModel": ".doge.modeling_doge",
        "DogeMoeConfig": ".doge.configuration_doge",
        "DogePreTrainedModel": ".doge.modeling_doge",
        "DynamicMaskCache": ".cache",
        "load_model": ".loading",
        "register_auto_classes": ".registration",
        "upcycle_to_moe": ".upcycle",
    },
)
