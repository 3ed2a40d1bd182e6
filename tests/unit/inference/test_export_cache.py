"""An export of a checkpoint is made once, and made again when it no longer fits."""

import errno
import os
import signal
import threading
import time

import pytest
from tests.unit.inference.conftest import LONGROPE, build_model

from small_doge.inference import export, export_cache
from small_doge.inference.export_cache import export_once, open_fast_engine
from small_doge.utils.errors import UserError


pytest.importorskip("onnxruntime")


@pytest.fixture
def exports(monkeypatch):
    """The exports that were made; the checks of their quality have tests of their own."""
    made, write = [], export.export_onnx

    def count(model, tokenizer, folder, quantize, **options):
        made.append(folder.name)
        return write(model, tokenizer, folder, quantize, max_perplexity_increase=10, **options)

    monkeypatch.setattr(export, "export_onnx", count)
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


@pytest.mark.parametrize(
    ("change", "reason"), [({"rope_parameters": LONGROPE}, "rope_type='longrope'"), ({"hidden_act": "tanh"}, "'tanh'")]
)
def test_a_model_that_has_no_graph_is_opened_on_pytorch(model, change, reason):
    build_model(vocab_size=512, **change).save_pretrained(model)
    told = []
    engine = open_fast_engine(model, 1, 1, "none", told.append)
    assert type(engine).__name__ == "TorchEngine" and engine.generate("Ada", max_new_tokens=2, ignore_eos=True)
    assert len(told) == 1 and "runs on PyTorch, which is slower" in told[0] and reason in told[0]


EXPORT = """
import os, sys, time
from functools import partial
from small_doge.inference import export, export_cache

place = sys.argv[3]

def stop(*arguments):
    open(sys.argv[2], "w").write(str(os.getpid()))
    time.sleep(600)

setattr(export if place == "write_manifest" else export_cache, place, stop)
export.export_onnx = partial(export.export_onnx, max_perplexity_increase=10)
export_cache.export_once(sys.argv[1], "none", print)
"""


@pytest.mark.parametrize("place", ["write_manifest", "write_json"])
def test_an_export_whose_process_is_killed_is_made_again_and_nothing_is_left(
    model, exports, tmp_path, warm_python, place
):
    run = threading.Thread(target=warm_python.run, args=("-c", EXPORT, str(model), str(tmp_path / "pid"), place))
    run.start()
    kept = model.parent / ".small-doge"
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert run.is_alive()
        time.sleep(0.05)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    run.join()
    assert [path for path in kept.iterdir() if path.name.startswith(".")] or place == "write_json"
    open_fast_engine(model, 1, 1, "none").close()
    assert exports == ["doge-float32"]
    assert {path.name for path in kept.iterdir()} == {"doge-float32", "doge-float32.json", "doge-float32.lock"}


def test_two_who_export_at_once_make_one_export(model, exports):
    told, found = [], []
    threads = [
        threading.Thread(target=lambda: found.append(export_once(model, "none", told.append))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exports) == 1 and len(set(found)) == 1 and len(found) == 3
    assert sum("Waiting for another process" in line for line in told) == 2


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), Exception("No space left on device (os error 28)")],
    ids=["of Python", "of the tokenizers"],
)
@pytest.mark.parametrize("place", ["write_manifest", "_save_tokenizer"])
def test_a_full_disk_is_told_and_pytorch_used(model, exports, monkeypatch, error, place):
    def fail(*arguments):
        raise error

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(export, place, fail)
        engine = open_fast_engine(model, 1, 1, "none", told.append)
    assert type(engine).__name__ == "TorchEngine" and "No space left" in told[-1] and "PyTorch" in told[-1]
    assert [path.name for path in (model.parent / ".small-doge").iterdir()] == ["doge-float32.lock"]
    assert type(open_fast_engine(model, 1, 1, "none", told.append)).__name__ == "OnnxEngine"


def test_a_mistake_of_ours_is_not_taken_for_a_full_disk(model, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(export, "export_onnx", fail)
    with pytest.raises(RuntimeError, match="broken"):
        export_once(model, "none", lambda text: None)


def test_an_adapter_is_refused_before_anything_is_told(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    told = []
    with pytest.raises(UserError, match="--merge-lora"):
        export_once(tmp_path / "adapter", "none", told.append)
    assert not told
