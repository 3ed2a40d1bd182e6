"""The sizes of the Doge family. To add a size, add an entry here and a recipe."""

from typing import Any


def _dense(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "vocab_size": 32768,
        "max_position_embeddings": 2048,
        "keep_window_size": 2048,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "dynamic",
            "rope_theta": 10000.0,
            "factor": 4.0,
        },
    }


def _moe(dense: dict[str, Any], experts: int, per_token: int) -> dict[str, Any]:
    return {**dense, "is_moe": True, "num_experts": experts, "num_experts_per_tok": per_token}


_DENSE = {
    "Doge-20M": _dense(8, 256, 2),
    "Doge-60M": _dense(16, 512, 4),
    "Doge-160M": _dense(24, 768, 6),
    "Doge-320M": _dense(32, 1024, 8),
}

PRESETS: dict[str, dict[str, Any]] = {
    **_DENSE,
    "Doge-20M-MoE": _moe(_DENSE["Doge-20M"], 1024, 8),
    "Doge-60M-MoE": _moe(_DENSE["Doge-60M"], 4096, 16),
    "Doge-160M-MoE": _moe(_DENSE["Doge-160M"], 9216, 24),
    "Doge-320M-MoE": _moe(_DENSE["Doge-320M"], 16384, 32),
}
