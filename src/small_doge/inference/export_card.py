"""The card of an exported folder: facts that were measured, and how to use it."""

import time
from typing import Any

import numpy as np

from ..models import DogeForCausalLM
from ..utils.hardware import describe_device
from ..utils.markdown import write_table
from ..utils.model_card import enclose_figures, list_facts
from .export_checks import CHECK_PROMPTS, Quality
from .onnx_backend import OnnxBackend


def collect_facts(
    model: DogeForCausalLM,
    backend: OnnxBackend,
    quality: Quality,
    quantize: str,
    settings: dict[str, Any],
    size: int,
    version: str,
    rows: list[list[int]],
) -> dict[str, Any]:
    """Collect the facts on the card, of the export and of its speed on this machine."""
    depth = 64 if settings["max_length"] is None else min(64, settings["max_length"] // 2)
    prefill, decode = _measure_speed(backend, depth)
    device = describe_device()
    return {
        "weights": {"none": "float32", "int8": "blocks of 8 bits", "int4": "blocks of 4 bits"}[quantize],
        "cache": f"{settings.get('kv_cache_dtype', 'float32')}, {backend.max_nbytes / 2**20:,.1f} MiB a text at most",
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M",
        "size of model.onnx": f"{size / 1e6:.1f} MB",
        "perplexity of the checkpoint": f"{quality.perplexity:.4f}",
        "perplexity of the export": f"{quality.exported_perplexity:.4f} ({quality.perplexity_increase:+.3%})",
        "measured on": f"{sum(map(len, rows)):,} tokens in {len(rows)} held-out rows",
        "logits against PyTorch with the same weights": f"{quality.logit_difference:.1e} of their spread",
        "same greedy text as PyTorch": f"{quality.same_greedy:.0%} of {min(CHECK_PROMPTS, len(rows))} prompts",
        "same likeliest token as PyTorch": f"{quality.agreement:.2%}",
        "divergence from PyTorch": f"{quality.divergence:.2e} nats per token",
        f"prompt of {depth} tokens": f"{prefill:,.0f} tokens/s",
        f"decoding after {depth} tokens": f"{decode:,.0f} tokens/s, threads: {backend.threads}",
        "machine": f"{device['processor']}, {device['instructions']}, ONNX Runtime {version}",
        "longest text": "no limit" if settings["max_length"] is None else f"{settings['max_length']} tokens",
    }


def _measure_speed(backend: OnnxBackend, depth: int) -> tuple[float, float]:
    """Measure tokens per second of a prompt of `depth` tokens and of decoding after it, the best of three."""
    ids, num_steps = np.arange(depth) % backend.vocab_size, min(32, depth)
    speeds = []
    for _ in range(3):
        backend.clear(0)
        start = time.perf_counter()
        backend.prefill(0, ids)
        middle = time.perf_counter()
        for _ in range(num_steps):
            backend.decode(1, np.zeros(1, dtype=np.int64))
        speeds.append((depth / (middle - start), num_steps / (time.perf_counter() - middle)))
    prefill, decode = (max(values) for values in zip(*speeds, strict=True))
    return prefill, decode


def build_card(name: str, facts: dict[str, Any], settings: dict[str, Any]) -> str:
    """Build the text of the card.

    Args:
        name: name of the model.
        facts: what `collect_facts` found.
        settings: the content of `runtime.json`.
    """
    limit = settings["max_length"]
    dynamic = (
        f"\nIts rotary frequencies are fixed for texts of up to {limit} tokens, prompt and answer together.\n"
        if limit
        else ""
    )
    table = "\n".join(enclose_figures(write_table(("Fact", "Value"), list_facts(facts))))
    return f"""---
library_name: onnx
pipeline_tag: text-generation
tags: [doge, small-doge, onnx]
---

# {name}

Exported with [SmallDoge](https://github.com/SmallDoges/small-doge).
{dynamic}
{table}

## Use

```bash
small-doge chat {name}
```

```python
from small_doge.inference import OnnxEngine

engine = OnnxEngine("{name}")
print(engine.generate("Ada lives in", max_new_tokens=20))
```
"""
