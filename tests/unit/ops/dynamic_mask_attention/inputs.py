"""Random inputs of attention."""

import torch


def make_inputs(batch=2, heads=4, kv_heads=2, tokens=20, size=8, ties=False, dtype=torch.float64):
    query = torch.randn(batch, heads, tokens, size, dtype=dtype)
    key, value = (torch.randn(batch, kv_heads, tokens, size, dtype=dtype) for _ in range(2))
    score = (
        torch.randint(1, 4, (batch, kv_heads, tokens)).to(dtype)
        if ties
        else torch.rand(batch, kv_heads, tokens, dtype=dtype) + 0.2
    )
    return [x.requires_grad_() for x in (query, key, value, score)]
