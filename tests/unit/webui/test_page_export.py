"""The page as a static folder: what is written, and what is refused before anything is."""

import json
import os

import pytest
from tests.unit.inference.conftest import build_model
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.inference.export import export_onnx
from small_doge.utils.errors import UserError
from small_doge.webui.page_export import export_page


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    sizes = {"vocab_size": 512, "num_hidden_layers": 1}
    export_onnx(build_model(**sizes), tiny_tokenizer, folder, "int8", max_perplexity_increase=10)
    return folder


def test_folder_holds_the_page_its_configuration_and_each_model_once(model, tmp_path):
    sizes = export_page([str(model), f"{model}/", os.path.relpath(model)], tmp_path / "page")
    assert list(sizes) == ["tiny", "tiny-2", "tiny-3"]
    config = json.loads((tmp_path / "page" / "config.json").read_text())
    assert config["engine"] == "browser"
    assert [(entry["id"], entry["path"]) for entry in config["models"]] == [(n, f"models/{n}") for n in sizes]
    assert config["models"][0]["can_chat"] is True and config["models"][0]["quantize"] == "int8"
    for name in ("runtime.json", "model.onnx", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "page" / "models" / "tiny" / name).read_bytes() == (model / name).read_bytes()
    page = (tmp_path / "page" / "index.html").read_text()
    assert (
        "script-src 'self' 'wasm-unsafe-eval'" in page and not (tmp_path / "page" / "static" / "index.html").exists()
    )
    assert (tmp_path / "page" / "static" / "engines" / "browser-worker.mjs").is_file()
    assert "http.server" in (tmp_path / "page" / "README.md").read_text()


def test_an_older_page_is_replaced_and_what_others_wrote_is_not(model, tmp_path):
    export_page([str(model)], tmp_path / "page")
    export_page([str(model), str(model)], tmp_path / "page")
    (tmp_path / "page" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt.*--overwrite"):
        export_page([str(model)], tmp_path / "page")
    assert (tmp_path / "page" / "models" / "tiny-2").is_dir()
    export_page([str(model)], tmp_path / "page", overwrite=True)
    assert (tmp_path / "page" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "page" / "models" / "tiny-2").exists()


def test_a_folder_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr("small_doge.webui.page_export.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_page([str(model)], tmp_path / "page")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "quantize", "message"),
    [
        ([], None, "name a model"),
        (["MODEL"], "int4", "quantize=int8 already"),
        (["nowhere/at/all"], None, "nowhere/at/all"),
    ],
)
def test_what_can_not_be_put_on_a_page_is_refused(model, tmp_path, names, quantize, message):
    with pytest.raises(UserError, match=message):
        export_page([str(model) if name == "MODEL" else name for name in names], tmp_path / "page", quantize)
    assert not (tmp_path / "page").exists()


def test_a_checkpoint_is_exported_first(tiny_tokenizer, tmp_path):
    build_model(vocab_size=512, num_hidden_layers=1).save_pretrained(tmp_path / "checkpoint")
    tiny_tokenizer.save_pretrained(tmp_path / "checkpoint")
    told = []
    sizes = export_page([str(tmp_path / "checkpoint")], tmp_path / "page", tell=told.append)
    assert list(sizes) == ["checkpoint"] and "Exporting" in told[0]
    runtime = json.loads((tmp_path / "page" / "models" / "checkpoint" / "runtime.json").read_text())
    assert runtime["quantize"] == "none"


def test_command_tells_the_size_and_what_to_open(model, tmp_path):
    done = CliRunner().invoke(app, ["webui", "export", str(model), str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    assert "MB" in done.output and "http.server" in done.output and "http://127.0.0.1:8000/" in done.output
