"""SmallDoge: train, align, evaluate and ship Doge, a family of small fast language models.

Importing the package registers Doge with the Auto classes of `transformers`, and asks the libraries that it loads not to
report to their makers (`small_doge.utils.reports`). It does nothing else.
"""

from .utils.reports import stop_reports


stop_reports()  # before any of these libraries is loaded

from .models import (  # noqa: E402
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
