"""Normalisation and rotary position embedding of Doge.

Shapes: B batch, T tokens, D hidden_size, d head_dim.
"""

from typing import Any

import torch
from torch import nn
from transformers import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from ...ops.elementwise import rms_norm
from .configuration_doge import DogeConfig


class DogeRMSNorm(nn.Module):
    """Normalises by the root mean square (arXiv:1910.07467), in float32 or better."""

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise [..., D] over the last dimension, in the type of the input."""
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)

    def extra_repr(self) -> str:
        """Show shape and epsilon where the model is printed."""
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


class DogeRotaryEmbedding(nn.Module):
    """Computes cosines and sines of the rotary position embedding (RoFormer, arXiv:2104.09864)."""

    def __init__(self, config: DogeConfig) -> None:
        super().__init__()
        assert config.rope_parameters is not None  # the configuration fills them in
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        rope_init = self.compute_default_rope_parameters
        if self.rope_type != "default":
            rope_init = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = rope_init(config)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: DogeConfig, **kwargs: Any) -> tuple[torch.Tensor, float]:
        """Compute the inverse frequencies [d / 2]; the second number scales cosines and sines, and is 1 here."""
        assert config.rope_parameters is not None
        exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponent), 1.0

    @property
    def fixed_length(self) -> int | None:
        """Return the length of a text up to which frequencies do not depend on it; None if they never do."""
        assert self.config.rope_parameters is not None
        lengths = {
            "dynamic": self.original_max_seq_len,
            "longrope": self.config.rope_parameters.get("original_max_position_embeddings"),
        }
        return lengths.get(self.rope_type)

    def reset(self) -> None:
        """Forget the length of earlier texts, which a dynamic RoPE keeps: what follows depends on its own length alone."""
        if self.max_seq_len_cached == self.original_max_seq_len:
            return
        self.max_seq_len_cached = self.original_max_seq_len
        self.inv_freq = nn.Buffer(self.original_inv_freq.clone(), persistent=False)

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute cosines and sines [B, T, d] for positions [B, T], in the type of x."""
        freqs = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float)
        emb = torch.cat((freqs, freqs), dim=-1)
        return (emb.cos() * self.attention_scaling).to(x.dtype), (emb.sin() * self.attention_scaling).to(x.dtype)


def apply_rotary_pos_emb(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys [B, heads, T, d] by cosines and sines [B, 1, T, d]."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return torch.addcmul(x * cos, rotated, sin)
