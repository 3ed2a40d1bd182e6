"""Pure functions on tensors: dynamic mask attention, expert routing, linear cross-entropy.

`small_doge.ops.dynamic_mask_attention` is the function here, and the package of its backends in import statements:
`from small_doge.ops.dynamic_mask_attention.masking import rank_keys` works, `import ...masking as m` does not.
"""

from .cdmoe import compute_load_balancing_loss, mix_experts, route_tokens
from .dynamic_mask_attention import (
    BACKENDS,
    PADDING_SCORE,
    DocumentGroup,
    KeptKeys,
    compute_scores,
    document_ids_from_positions,
    dynamic_mask_attention,
    group_documents,
    streaming_attention,
)
from .loss import cross_entropy, linear_cross_entropy


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
