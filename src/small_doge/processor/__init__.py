"""From sources to training sets: tokenizer, embedded corpus, mixing, packing.

Its functions are imported when they are asked for: encoding a conversation needs no library for data.
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .pt_datasets_process import mix_datasets_by_radio, mix_datasets_by_ratio
    from .tokenizer import train_tokenizer

__all__ = ["mix_datasets_by_radio", "mix_datasets_by_ratio", "train_tokenizer"]


def __getattr__(name: str) -> Any:
    if name in ("mix_datasets_by_radio", "mix_datasets_by_ratio"):
        from . import pt_datasets_process

        return getattr(pt_datasets_process, name)
    if name == "train_tokenizer":
        from .tokenizer import train_tokenizer

        return train_tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
