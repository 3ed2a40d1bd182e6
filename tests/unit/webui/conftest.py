"""Tiny exported models, and a server of them."""

import copy

import pytest
from tests.unit.inference.conftest import build_model


pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")

SIZES = {"vocab_size": 512, "num_hidden_layers": 2, "keep_window_size": 24, "max_position_embeddings": 256}


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory, tiny_tokenizer):
    """A folder with an exported model that can chat, another one, and one without a chat template."""
    from small_doge.inference.export import export_onnx

    folder = tmp_path_factory.mktemp("models")
    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    for name, tokenizer in (("doge", tiny_tokenizer), ("other", tiny_tokenizer), ("base", plain)):
        export_onnx(build_model(**SIZES), tokenizer, folder / name, "none", max_perplexity_increase=10)
    return folder


@pytest.fixture(scope="session")
def server(models_dir):
    """Address of a running server whose first model is `doge`."""
    from tests.webui import run_app

    with run_app(models=(str(models_dir / "doge"),), models_dir=str(models_dir), threads=1) as (address, _):
        yield address


@pytest.fixture
def engine(models_dir):
    """The same model, for comparison."""
    from small_doge.inference import OnnxEngine

    return OnnxEngine(models_dir / "doge", threads=1)
