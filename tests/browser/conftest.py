"""A server with tiny models, and a browser to open its page in."""

import shutil

import pytest

from tests.browser.page import PATIENCE, open_page
from tests.unit.inference.conftest import build_model


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# doge.test is this machine by another name, which no browser takes for a secure place.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    "--host-resolver-rules=MAP doge.test 127.0.0.1",
]


@pytest.fixture(scope="module")
def chromium():
    """A browser for a file's tests; each opens a context of its own. While it runs, asyncio.run fails in this thread."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory, tiny_tokenizer):
    """Exported folders of two models that chat and one that has no chat template."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pytest.importorskip("fastapi")
    from small_doge.inference.export import export_onnx
    from small_doge.utils.files import write_manifest

    folder = tmp_path_factory.mktemp("models")
    model = build_model(vocab_size=len(tiny_tokenizer), keep_window_size=24, num_hidden_layers=2)
    export_onnx(model, tiny_tokenizer, folder / "first", "none", max_perplexity_increase=10)
    for name in ("second", "base"):
        shutil.copytree(folder / "first", folder / name)
    (folder / "base" / "chat_template.jinja").unlink()
    (folder / "base" / "manifest.json").unlink()
    write_manifest(folder / "base")
    return folder


@pytest.fixture(scope="session")
def run_app():
    """Runs a server in this process; see tests/webui.py."""
    pytest.importorskip("fastapi")
    from tests.webui import run_app

    return run_app


@pytest.fixture(scope="session")
def server(models, run_app, tmp_path_factory):
    """Address of a server of three models."""
    names = [f"{name}={models / name}" for name in ("first", "second", "base")]
    chats = tmp_path_factory.mktemp("chats") / "chats.db"
    with run_app(models=tuple(names), chats=str(chats), threads=1) as (address, _):
        yield f"{address}/"


@pytest.fixture
def page(chromium, server):
    with open_page(chromium, server) as page:
        yield page.open()
