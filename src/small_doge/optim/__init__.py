"""Optimizers: Muon for the weight matrices of attention and feed-forward layers, AdamW for the rest."""

from .groups import is_muon_parameter, split_parameters
from .muon import FIRST_MOMENTUM, Muon, orthogonalize


__all__ = ["FIRST_MOMENTUM", "Muon", "is_muon_parameter", "orthogonalize", "split_parameters"]
