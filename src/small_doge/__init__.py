"""SmallDoge: train, align, evaluate and ship Doge, a family of small fast language models.

Importing the package asks libraries not to report to their makers (`small_doge.utils.reports`), and lets the Auto classes
of `transformers` know Doge as soon as they are loaded (`small_doge.models.registration`). It loads no library: what it
exports is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from .utils.lazy import lazy_names
from .utils.reports import stop_reports


stop_reports()  # before any of these libraries is loaded

from .models.registration import register_when_loaded  # noqa: E402


if TYPE_CHECKING:
    from .models import (
        DogeConfig,
        DogeForCausalLM,
        DogeForSequenceClassification,
        DogeModel,
        DynamicMaskCache,
    )

__version__ = "0.1.0"  # the only place that tells it: pyproject.toml reads it here

__all__ = [
    "DogeConfig",
    "DogeForCausalLM",
    "DogeForSequenceClassification",
    "DogeModel",
    "DynamicMaskCache",
    "__version__",
]

__getattr__ = lazy_names(__name__, {name: ".models" for name in __all__ if name != "__version__"})

register_when_loaded()
