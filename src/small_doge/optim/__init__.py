"""Optimizers: Muon for the weight matrices of attention and feed-forward layers, AdamW for the rest."""

from .groups import is_muon_parameter, split_parameters
from .muon import Muon, orthogonalize


__all__ = ["Muon", "is_muon_parameter", "orthogonalize", "split_parameters"]
