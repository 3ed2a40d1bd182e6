"""From sources to training sets: tokenizer, embedded corpus, mixing, packing.

Its functions are imported when they are asked for: encoding a conversation needs no library for data.
"""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names


if TYPE_CHECKING:
    from .pt_datasets_process import mix_datasets_by_radio, mix_datasets_by_ratio
    from .tokenizer import train_tokenizer

__all__ = ["mix_datasets_by_radio", "mix_datasets_by_ratio", "train_tokenizer"]

__getattr__ = lazy_names(
    __name__,
    {
        "mix_datasets_by_radio": ".pt_datasets_process",
        "mix_datasets_by_ratio": ".pt_datasets_process",
        "train_tokenizer": ".tokenizer",
    },
)
