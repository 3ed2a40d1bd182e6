"""Dynamic mask attention (arXiv:2412.11834): one call, several backends that agree.

| Backend | Module | Used for |
|---|---|---|
| `auto` | `dispatch` | every length: `fused` while no document is longer than the window, `streaming` beyond it |
| `reference` | `reference` | comparison, attention weights, arbitrary masks: dense, O(T^2) |
| `fused` | `fused` | documents of at most `keep_window_size` tokens: PyTorch's fused causal attention |
| `streaming` | `streaming` | documents of any length: chunks of queries, O(T * (w + C)) |
| `flex` | `flex` | CUDA: FlexAttention with a block mask |

Generation with the bounded cache has no choice of backend: it takes single tokens by `decode` and longer pieces by
`streaming`. For all of them `masking` decides which keys a query keeps, and `documents` tells packed documents apart.
"""

from .dispatch import BACKENDS, dynamic_mask_attention
from .documents import DocumentGroup, document_ids_from_positions, group_documents
from .masking import PADDING_SCORE, KeptKeys, compute_scores
from .streaming import streaming_attention


__all__ = [
    "BACKENDS",
    "PADDING_SCORE",
    "DocumentGroup",
    "KeptKeys",
    "compute_scores",
    "document_ids_from_positions",
    "dynamic_mask_attention",
    "group_documents",
    "streaming_attention",
]
