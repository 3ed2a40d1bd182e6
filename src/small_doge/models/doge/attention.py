"""The attention layer of Doge: which keys and queries go to which backend of dynamic mask attention.

Shapes: B batch, T tokens, N tokens so far, D hidden_size, H query heads, K key-value heads, d head_dim.
"""

from typing import Any

import torch
from torch import nn
from transformers import Cache

from ... import ops
from ...ops.dynamic_mask_attention.masking import cached_causal_mask, causal_mask, zero_rows_without_keys
from ...ops.dynamic_mask_attention.reference import reference_attention
from ...utils.errors import UserError
from ...utils.suggest import unknown_name_message
from ..cache import DynamicMaskCache
from .configuration_doge import DogeConfig
from .layers import DogeRMSNorm, apply_rotary_pos_emb


# Names of `transformers` for implementations of attention, which its users and its trainers pass. `sdpa` is what it
# sets when none is asked for.
BACKEND_ALIASES = {"eager": "reference", "sdpa": "auto", "flex_attention": "flex"}


def resolve_backend(attn_implementation: str | None) -> str:
    """Find the backend that an `attn_implementation` stands for: a name in `ops.BACKENDS` or in `BACKEND_ALIASES`.

    Raises:
        UserError: another name.
    """
    name = attn_implementation or "auto"
    backend = BACKEND_ALIASES.get(name, name)
    if backend not in ops.BACKENDS:
        raise UserError(unknown_name_message("attn_implementation", name, (*ops.BACKENDS, *BACKEND_ALIASES)))
    return backend


class DogeAttention(nn.Module):
    """Projects hidden states and attends by dynamic mask attention, with normalised, rotated queries and keys.

    Query heads in groups share a key-value head. `A` and `dt_proj` make each key's score from its value states.
    """

    def __init__(self, config: DogeConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None  # the configuration fills it in
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_heads = config.num_attention_heads
        self.num_key_value_heads = config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout or 0.0
        self.keep_window_size = config.keep_window_size

        hidden, bias = config.hidden_size, config.attention_bias
        query_size, kv_size = self.num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(hidden, query_size, bias=bias)
        self.k_proj = nn.Linear(hidden, kv_size, bias=bias)
        self.v_proj = nn.Linear(hidden, kv_size, bias=bias)
        self.A = nn.Parameter(torch.zeros(self.num_key_value_heads))
        self.dt_proj = nn.Linear(kv_size, self.num_key_value_heads, bias=bias)
        self.o_proj = nn.Linear(query_size, hidden, bias=bias)
        self.q_norm = DogeRMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = DogeRMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        document_ids: torch.Tensor | None = None,
        documents: list[ops.DocumentGroup] | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix the tokens of hidden states [B, T, D].

        Args:
            hidden_states: [B, T, D].
            position_embeddings: cosines and sines, [B, T, d] each.
            attention_mask: [B, N] over all tokens so far, 1 for real ones; [B, 1, T, N], any other pattern; or None.
            past_key_values: `DynamicMaskCache`, or any cache of `transformers`.
            document_ids: [B, T], the documents of packed rows.
            documents: `ops.group_documents(document_ids)`.
            output_attentions: return the attention weights.

        Returns:
            [B, T, D] and, if asked for, attention weights [B, H, T, N].
        """
        # 1. Project, normalise each head and rotate.
        batch, num_tokens, _ = hidden_states.shape
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        cos, sin = (x.unsqueeze(1) for x in position_embeddings)
        heads = (batch, num_tokens, -1, self.head_dim)
        query = apply_rotary_pos_emb(self.q_norm(query.view(heads)).transpose(1, 2), cos, sin)  # [B, H, T, d]
        key = apply_rotary_pos_emb(self.k_norm(key.view(heads)).transpose(1, 2), cos, sin)  # [B, K, T, d]

        # 2. Attend: with the bounded cache, or without any by the configured backend. What neither can do (attention
        # weights, masks of other patterns, caches that keep all keys) is left to the dense reference.
        weights = None
        dropout = self.attention_dropout if self.training else 0.0
        is_padding = attention_mask is None or attention_mask.dim() == 2
        if isinstance(past_key_values, DynamicMaskCache) and not output_attentions:
            output = self._attend_bounded(query, key, value, attention_mask, past_key_values)
        elif past_key_values is None and not output_attentions and is_padding:
            output = self.attend(
                query,
                key,
                value.view(heads).transpose(1, 2),
                self._compute_scores(value),
                keep_window_size=self.keep_window_size,
                padding_mask=attention_mask,
                document_ids=document_ids,
                documents=documents,
                scale=self.scaling,
                backend=resolve_backend(self.config._attn_implementation),
                dropout=dropout,
            )
        else:
            output, weights = self._attend_dense(
                query, key, value, attention_mask, past_key_values, document_ids, dropout
            )

        # 3. Join the heads.
        output = output.transpose(1, 2).reshape(batch, num_tokens, -1)
        return self.o_proj(output), weights if output_attentions else None

    def attend(self, *args: Any, **options: Any) -> torch.Tensor:
        """Attend without a cache, by `ops.dynamic_mask_attention`; comparisons put another attention in its place."""
        return ops.dynamic_mask_attention(*args, **options)

    def _compute_scores(self, value: torch.Tensor) -> torch.Tensor:
        """Compute scores [B, K, N] from value states [B, N, K * d], without rounding float32 weights under autocast.

        Neither position nor query enters: that is why a dropped key never comes back.
        """
        weight = getattr(self.dt_proj, "weight", value)  # what replaces the layer may have no weight, or a packed one
        if weight.dtype in (torch.float32, torch.float64):
            value = value.to(weight.dtype)
        with torch.autocast(value.device.type, enabled=False):
            return ops.compute_scores(self.dt_proj(value), self.A)

    def _attend_bounded(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: DynamicMaskCache,
    ) -> torch.Tensor:
        """Attend to the kept keys of a bounded cache, and store the new ones in it."""
        layer = cache.layers[self.layer_idx]
        score = self._compute_scores(value)
        value = value.view(*value.shape[:2], -1, self.head_dim).transpose(1, 2)
        padding = None
        if attention_mask is not None:
            if attention_mask.dim() != 2:
                raise UserError(
                    f"attention_mask has {attention_mask.dim()} dimensions; DynamicMaskCache takes masks of 2, "
                    "[batch, tokens]. Pass past_key_values=DynamicCache() for other patterns"
                )
            padding = attention_mask[:, -query.shape[2] :].bool()
            score = score.masked_fill(~padding[:, None, :], ops.PADDING_SCORE)
        has_past = None if padding is None else layer.has_real_key()
        output = layer.attend(query, key, value, score, self.scaling)
        return output if padding is None else zero_rows_without_keys(output, padding, has_past=has_past)

    def _attend_dense(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        document_ids: torch.Tensor | None,
        dropout: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend by the reference, which takes any mask and any cache of all keys, and returns the weights."""
        past = 0
        value = value.view(*value.shape[:2], -1, self.head_dim).transpose(1, 2)
        if isinstance(cache, DynamicMaskCache):
            raise UserError(
                "output_attentions=True needs all keys; pass use_cache=False or past_key_values=DynamicCache()"
            )
        if cache is not None:
            past = int(cache.get_seq_length(self.layer_idx))
            key, value = cache.update(key, value, self.layer_idx)
        score = self._compute_scores(value.transpose(1, 2).flatten(2))
        if attention_mask is not None and attention_mask.dim() == 4:
            allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
            allowed = allowed[..., : key.shape[2]]
        elif cache is None:
            allowed = causal_mask(query.shape[2], attention_mask, document_ids, query.device)
        else:
            allowed = cached_causal_mask(query.shape[2], key.shape[2], past, attention_mask, query.device)
        return reference_attention(query, key, value, score, allowed, self.keep_window_size, self.scaling, dropout)
