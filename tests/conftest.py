"""Shared fixtures: tiny models, a tiny tokenizer, and threads that do not fight over the cores."""

import copy
import gc
import logging
import os


# Read when the libraries are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core has a worker of its own

import psutil
import pytest
import torch

from small_doge import DogeConfig, DogeForCausalLM, DynamicMaskCache
from tests.warm_python import WarmPython


TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "keep_window_size": 8,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
# Of float32, by which a score may differ between two ways of computing it.
UNITS_OF_ROUNDING = 32
EXPERTS = {"is_moe": True, "num_experts": 64, "num_experts_per_tok": 4}
GIB_PER_WORKER = 2


def pytest_xdist_auto_num_workers():
    """Of `-n auto`: a worker for each core, as far as the memory goes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // (GIB_PER_WORKER << 30)))


def pytest_collection_finish():
    """Spare collections what the libraries and the tests hold; trainers and others ask for one again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_data_folder(tmp_path_factory):
    """A server under test keeps its conversations out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


def build_tiny(**overrides) -> DogeForCausalLM:
    """A tiny model with scores that differ from key to key."""
    model = DogeForCausalLM(DogeConfig(**{**TINY, **overrides}))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.A)
    return model.eval()


@torch.no_grad()
def draw_clear_rows(model, count, vocabulary, tokens):
    """[count, tokens] none of whose scores is so near to the middle of two bfloat16 numbers that rounding decides."""
    exact, rows = copy.deepcopy(model).double(), []
    while len(rows) < count:
        ids = torch.randint(0, vocabulary, (1, tokens))
        cache = DynamicMaskCache(exact.config)
        for layer in cache.layers:
            layer.keep_window_size = tokens  # nothing leaves, so that all scores can be read
        exact(ids, past_key_values=cache, use_cache=True)
        bits = torch.stack([layer.scores for layer in cache.layers]).float().view(torch.int32)
        if int(((bits & 0xFFFF) - 0x8000).abs().min()) > UNITS_OF_ROUNDING:
            rows.append(ids)
    return torch.cat(rows)


@pytest.fixture
def tiny_model():
    return build_tiny()


@pytest.fixture(scope="session")
def tiny_tokenizer():
    from small_doge.processor import train_tokenizer
    from small_doge.processor.corpus import iterate_mixture

    return train_tokenizer(iterate_mixture(400), vocab_size=512, max_digits=1, model_max_length=64)


@pytest.fixture(scope="session")
def warm_python():
    python = WarmPython()
    yield python
    python.close()


class Messages(logging.Handler):
    """What the package logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    @property
    def text(self):
        return "\n".join(self.lines)


@pytest.fixture
def messages():
    handler = Messages()
    logging.getLogger("small_doge").addHandler(handler)
    yield handler
    logging.getLogger("small_doge").removeHandler(handler)
