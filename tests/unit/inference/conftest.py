"""Tiny models in the exported form."""

import numpy as np
import pytest
import torch
from tests.conftest import TINY, build_tiny

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.inference import Engine, TorchEngine


SIZES = {**TINY, "hidden_size": 64, "vocab_size": 97, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 32,
    "factor": 2.0,
}


def build_model(**overrides):
    """A tiny model whose every weight matters: no score, scale, bias or residual has its first value."""
    torch.manual_seed(1)
    model = DogeForCausalLM(DogeConfig(**{**SIZES, **overrides})).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and "bias" not in name:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.15)
    model.generation_config.eos_token_id = 3
    return model


def settings_of(config, max_length=None):
    """What a backend reads of the runtime configuration."""
    return {
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_dim,
        "vocab_size": config.vocab_size,
        "keep_window_size": config.keep_window_size,
        "max_length": max_length,
    }


@pytest.fixture
def make_backend():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from small_doge.inference.graph import DogeGraph, set_accuracy
    from small_doge.inference.graph_weights import WEIGHT_FORMATS
    from small_doge.inference.onnx_backend import OnnxBackend

    def make(model, quantize="none", num_slots=4, accuracy=1, max_length=None):
        graph = DogeGraph(model, WEIGHT_FORMATS[quantize], max_length)
        proto = set_accuracy(graph.build(), accuracy)
        backend = OnnxBackend(
            proto.SerializeToString(), settings_of(model.config, max_length), num_slots=num_slots, threads=1
        )
        backend.rounded = graph.rounded
        return backend

    return make


@pytest.fixture
def engine(tiny_tokenizer):
    return TorchEngine(build_tiny(vocab_size=len(tiny_tokenizer)), tiny_tokenizer, num_slots=2)


@pytest.fixture(params=["onnx", "torch"])
def make_engine(request, make_backend):
    def make(num_slots=4, max_length=None, tokenizer=None, **overrides):
        model = build_model(**overrides)
        if request.param == "torch":
            engine = TorchEngine(model, tokenizer, num_slots=num_slots)
            engine.backend.max_length = max_length
            return engine
        return Engine(make_backend(model, num_slots=num_slots, max_length=max_length), tokenizer, [3], "the model")

    return make


@torch.no_grad()
def write_greedily(prompt, count, **overrides):
    """The likeliest tokens by full forward passes, without any cache."""
    model, ids = build_model(**overrides), list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def run_pieces(backend, tokens, pieces, slot=0):
    """Logits [T, V] of a text taken in by pieces of these sizes, then the rest one by one."""
    backend.clear(slot)
    sizes = [*pieces, *[1] * (len(tokens) - sum(pieces))]
    logits, start = [], 0
    for size in sizes:
        part = tokens[start : start + size]
        logits.append(backend.prefill(slot, part, keep=np.arange(size)))
        start += size
    return np.concatenate(logits)


def distinct_tokens(count, vocab_size, seed=0):
    """Tokens without repetition, whose scores all differ."""
    return np.random.default_rng(seed).permutation(vocab_size)[:count]
