"""SmallDoge: train, align, evaluate and ship Doge, a family of small fast language models.

Importing the package registers Doge with the Auto classes of `transformers`, and does nothing else.
"""

from .models import (
    DogeConfig,
    DogeForCausalLM,
    DogeForSequenceClassification,
    DogeModel,
    DynamicMaskCache,
    register_auto_classes,
)


__version__ = "0.1.0"

__all__ = [
    "DogeConfig",
    "DogeForCausalLM",
    "DogeForSequenceClassification",
    "DogeModel",
    "DynamicMaskCache",
    "__version__",
]

register_auto_classes()
