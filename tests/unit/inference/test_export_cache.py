"""An export of a checkpoint is made once, and made again when it no longer fits."""

import pytest
from tests.unit.inference.conftest import build_model

from small_doge.inference import export_cache
from small_doge.inference.export_cache import export_once, open_fast_engine
from small_doge.utils.errors import UserError


pytest.importorskip("onnxruntime")


@pytest.fixture
def exports(monkeypatch):
    """The exports that were made; the checks of their quality have tests of their own."""
    made, export = [], export_cache.export_onnx

    def count(model, tokenizer, folder, quantize, **options):
        made.append(folder.name)
        return export(model, tokenizer, folder, quantize, max_perplexity_increase=10, **options)

    monkeypatch.setattr(export_cache, "export_onnx", count)
    return made


@pytest.fixture
def model(tmp_path, tiny_tokenizer):
    folder = tmp_path / "doge"
    build_model(vocab_size=512).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_an_export_is_made_once_and_again_when_it_no_longer_fits(model, exports):
    told = []
    leftover = model.parent / ".small-doge" / ".doge-float32.abcd1234"
    leftover.mkdir(parents=True)
    folder = export_once(model, "none", told.append)
    assert folder == model.parent / ".small-doge" / "doge-float32" and str(folder) in told[0]
    assert not leftover.exists()
    assert export_once(model, "none", told.append) == folder and len(exports) == len(told) == 1
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    export_once(model, "none", told.append)
    (folder / "model.onnx").write_bytes(b"damaged")
    export_once(model, "none", told.append)
    assert len(exports) == 3
    export_once(model, "int8", told.append)
    assert exports[-1] == "doge-int8"
    open_fast_engine(folder, 1, 1, "int8", told.append).close()
    assert "--quantize int8 has no effect" in told[-1]


def test_a_folder_that_can_not_be_written_to_leaves_the_export_to_the_users_cache(
    model, exports, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(export_cache.os, "access", lambda *_: False)
    folder = export_once(model, "none", lambda text: None)
    assert folder.is_relative_to(tmp_path / "cache" / "small-doge")
    told = []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    engine = open_fast_engine(model, 1, 1, "none", told.append)
    assert "runs on PyTorch, which is slower" in told[0] and type(engine).__name__ == "TorchEngine"


def test_an_adapter_is_refused_before_anything_is_told(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    told = []
    with pytest.raises(UserError, match="--merge-lora"):
        export_once(tmp_path / "adapter", "none", told.append)
    assert not told
