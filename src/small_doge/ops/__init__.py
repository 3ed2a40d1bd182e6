"""Pure functions on tensors: dynamic mask attention, expert routing, linear cross-entropy."""

from .attention import BACKENDS, compute_scores, dynamic_mask_attention
from .cdmoe import compute_load_balancing_loss, mix_experts, route_tokens
from .loss import cross_entropy, linear_cross_entropy
from .masking import PADDING_SCORE, DocumentGroup, KeptKeys, document_ids_from_positions, group_documents
from .streaming import streaming_attention


__all__ = [
    "BACKENDS",
    "PADDING_SCORE",
    "DocumentGroup",
    "KeptKeys",
    "compute_load_balancing_loss",
    "compute_scores",
    "cross_entropy",
    "document_ids_from_positions",
    "dynamic_mask_attention",
    "group_documents",
    "linear_cross_entropy",
    "mix_experts",
    "route_tokens",
    "streaming_attention",
]
