"""From sources to training sets: tokenizer, embedded corpus, mixing, packing."""

from .pt_datasets_process import mix_datasets_by_radio, mix_datasets_by_ratio
from .tokenizer import train_tokenizer


__all__ = ["mix_datasets_by_radio", "mix_datasets_by_ratio", "train_tokenizer"]
