"""Doge models, their configuration, bounded cache and growth into experts."""

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
