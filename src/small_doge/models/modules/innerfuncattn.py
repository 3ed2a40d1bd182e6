"""Inner Function Attention, as a module of its own (arXiv:2407.16958).

Shapes: B batch, T tokens, N tokens so far.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache, DynamicCache

from ...utils.errors import UserError


class InnerFuncAttn(nn.Module):
    """Attends causally with retrieved values: value = x * (weighted sum of rows of a learned table).

    A query u = W_u x scores `n_inner_values` learned keys; the best of them select rows of a table. Unlike the first
    release, the rows are weighted by a softmax of their scores (an arg max gives the keys no gradient), the keys are
    initialised at random (from zero they would never differ), and both queries and keys are rotated, once.

    Args:
        d_model: width of input and output.
        n_heads: attention heads.
        n_inner_values: rows of the value table.
        max_position_embeddings: positions that the rotation serves.
        layer_idx: place in the cache.
        n_retrieved: rows a token picks; at most 8 if None.
        rope_theta: base of the rotation's wavelengths.

    Raises:
        UserError: sizes that do not fit, or a sequence longer than `max_position_embeddings`.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_inner_values: int,
        max_position_embeddings: int,
        layer_idx: int,
        n_retrieved: int | None = None,
        rope_theta: float = 10000.0,
    ) -> None:
        super().__init__()
        if d_model % (2 * n_heads):
            raise UserError(f"d_model={d_model} must be a multiple of 2 * n_heads={2 * n_heads}")
        if n_inner_values < 1:
            raise UserError(f"n_inner_values={n_inner_values} must be at least 1")
        self.n_heads, self.layer_idx = n_heads, layer_idx
        self.max_position_embeddings = max_position_embeddings
        self.n_retrieved = min(n_inner_values, 8 if n_retrieved is None else n_retrieved)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.u_proj = nn.Linear(d_model, d_model, bias=False)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_queries = nn.Parameter(torch.randn(n_inner_values, d_model) * d_model**-0.5)
        self.v_embed = nn.Embedding(n_inner_values, d_model)
        size = d_model // n_heads
        inv_freq = rope_theta ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> tuple[torch.Tensor, Cache]:
        """Attend from hidden states [B, T, d_model] to those so far.

        Args:
            hidden_states: [B, T, d_model].
            attention_mask: [B, N], 1 for real tokens.
            past_key_values: keys and values of earlier calls; a new cache if None.

        Returns:
            [B, T, d_model] and the cache.
        """
        batch, num_tokens, _ = hidden_states.shape
        past_key_values = DynamicCache() if past_key_values is None else past_key_values
        past = past_key_values.get_seq_length(self.layer_idx)
        if past + num_tokens > self.max_position_embeddings:
            raise UserError(
                f"{past + num_tokens} tokens are more than max_position_embeddings={self.max_position_embeddings}"
            )
        positions = torch.arange(past, past + num_tokens, device=hidden_states.device)
        query = self._rotate(self._split(self.q_proj(hidden_states)), positions)
        key = self._rotate(self._split(self.k_proj(hidden_states)), positions)
        value = self._split(self.retrieve_values(hidden_states))
        key, value = past_key_values.update(key, value, self.layer_idx)
        mask = torch.arange(past + num_tokens, device=hidden_states.device) <= positions[:, None]
        if attention_mask is not None:
            mask = mask & attention_mask.bool()[:, None, None, :]
        # Rows that have only padding look at everything here and are zeroed below: no NaN.
        has_key = mask.any(dim=-1, keepdim=True)
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | ~has_key)
        output = output * has_key
        return self.o_proj(output.transpose(1, 2).reshape(batch, num_tokens, -1)), past_key_values

    def retrieve_values(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Multiply hidden states [B, T, d_model] by the rows they select, weighted by a softmax of their scores."""
        scores, rows = (self.u_proj(hidden_states) @ self.v_queries.T).topk(self.n_retrieved, dim=-1)
        weights = scores.softmax(dim=-1)
        flat = F.embedding_bag(
            rows.flatten(0, 1), self.v_embed.weight, per_sample_weights=weights.flatten(0, 1), mode="sum"
        )
        return hidden_states * flat.view_as(hidden_states)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def _rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        angles = positions[:, None].float() * self.inv_freq
        cos, sin = (torch.cat([f(angles)] * 2, dim=-1).to(x.dtype) for f in (torch.cos, torch.sin))
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
