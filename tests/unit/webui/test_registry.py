"""Models that are found, loaded, unloaded, replaced and repaired."""

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from small_doge.inference import open_engine
from small_doge.utils.errors import UserError
from small_doge.webui.errors import ApiError
from small_doge.webui.model_facts import make_digest
from small_doge.webui.model_files import estimate_bytes, find_newest
from small_doge.webui.registry import ModelRegistry
from small_doge.webui.settings import ServeSettings


@pytest.fixture
def folder(models_dir, tmp_path):
    shutil.copytree(models_dir, tmp_path / "models")
    return tmp_path / "models"


def build(folder, **settings):
    return ModelRegistry(ServeSettings(models_dir=str(folder), threads=1, **settings), lambda text: None)


def run(work, registry):
    async def live():
        try:
            await work()
        finally:
            await registry.close(0)

    asyncio.run(live())


def test_the_model_used_least_recently_makes_room_and_one_in_use_stays(folder):
    registry = build(folder)
    registry.budget = estimate_bytes(folder / "doge")

    async def work():
        with await registry.acquire("doge") as doge:
            with pytest.raises(ApiError, match="try again later") as caught:
                await registry.acquire("other")
            assert caught.value.status == 503 and "Retry-After" in caught.value.headers
            with pytest.raises(ApiError) as caught:
                await registry.unload(doge)
            assert caught.value.status == 409 and doge.is_loaded
        with await registry.acquire("other") as other:
            assert other.is_loaded and not doge.is_loaded
        registry.budget = 1
        with pytest.raises(ApiError, match="--memory-budget"):
            await registry.acquire("doge")

    run(work, registry)


def test_a_model_that_failed_is_loaded_when_it_was_repaired(folder):
    graph = folder / "doge" / "model.onnx"
    graph.rename(folder / "kept")
    registry = build(folder)

    async def work():
        with pytest.raises(UserError, match=r"model\.onnx is missing"):
            await registry.acquire("doge")
        assert registry.find("doge").status == "failed" and registry.find("doge").num_users == 0
        (folder / "kept").rename(graph)
        with await registry.acquire("doge") as entry:
            assert entry.status == "loaded" and entry.error is None

    run(work, registry)


def test_a_model_that_is_replaced_while_loaded_is_told_and_taken_after_an_unload(folder):
    registry = build(folder)

    async def work():
        with await registry.acquire("doge") as entry:
            assert entry.describe()["changed"] is False
            before = entry.fingerprint
            os.utime(folder / "doge" / "model.onnx", (2e9, 2e9))
            assert entry.describe()["changed"] is True
        await registry.unload(entry)
        with await registry.acquire("doge"):
            assert entry.describe()["changed"] is False and entry.fingerprint != before
            shutil.rmtree(folder / "doge")
            registry.rescan()
            assert registry.find("doge") is entry and entry.describe()["changed"] is True

    run(work, registry)


def test_a_report_and_a_card_do_not_make_a_model_another_one(folder):
    registry = build(folder)

    async def work():
        with await registry.acquire("doge") as entry:
            digest, fingerprint = make_digest(entry), entry.fingerprint
            for name in ("report.json", "report.md", "README.md", "facts.json"):
                (folder / "doge" / name).write_text("{}")
                os.utime(folder / "doge" / name, (2e9, 2e9))
            assert not entry.has_changed
            entry.note_change()
            assert (make_digest(entry), entry.fingerprint) == (digest, fingerprint)

    run(work, registry)


@pytest.mark.parametrize("name", ["model.onnx", "runtime.json", "config.json", "tokenizer.json"])
def test_a_change_of_what_a_model_is_made_of_is_told(folder, name):
    registry = build(folder)

    async def work():
        with await registry.acquire("doge") as entry:
            digest = make_digest(entry)
            os.utime(folder / "doge" / name, (2e9, 2e9))
            assert entry.has_changed and make_digest(entry) != digest

    run(work, registry)


def test_a_file_that_is_removed_while_a_model_is_described_is_left_out(folder, monkeypatch):
    entry = build(folder).find("doge")
    digest, newest = make_digest(entry), find_newest(entry.folder)
    (folder / "doge" / "tokenizer.model").symlink_to("nowhere")  # a name that is listed, and no file by then
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert (make_digest(entry), find_newest(entry.folder)) == (digest, newest)


def test_a_load_that_takes_long_does_not_hold_up_the_end(folder, monkeypatch):
    registry, go_on = build(folder), threading.Event()
    monkeypatch.setattr(registry, "_open", lambda entry: go_on.wait(30))

    async def work():
        waiting = asyncio.create_task(registry.acquire("doge"))
        while registry.find("doge").status != "loading":
            await asyncio.sleep(0.01)
        start = time.monotonic()
        await registry.close(5)
        for asked in (waiting, registry.acquire("other")):
            with pytest.raises(ApiError, match="shutting down") as caught:
                await asked
            assert caught.value.status == 503
        assert time.monotonic() - start < 4 and registry.find("doge").num_users == 0

    asyncio.run(work())
    go_on.set()


def test_a_model_that_a_request_waits_for_is_not_unloaded(folder):
    registry = build(folder)

    async def work():
        with await registry.acquire("doge") as entry:
            pass
        async with registry._loading:
            unloading = asyncio.create_task(registry.unload(entry))
            await asyncio.sleep(0)
            held = await registry.acquire("doge")
        with held, pytest.raises(ApiError, match="answers 1 requests now"):
            await unloading
        assert entry.is_loaded and not entry.num_users

    run(work, registry)


def test_a_loaded_model_whose_files_are_gone_is_still_described(folder):
    registry = build(folder)

    async def work():
        with await registry.acquire("doge") as entry:
            shutil.rmtree(folder / "doge")
            assert entry.count_bytes() > 0 and entry.describe()["loaded"] is True

    run(work, registry)


def test_models_are_offered_when_they_appear_but_no_hidden_or_foreign_ones(folder):
    registry = build(folder)
    shutil.copytree(folder / "doge", folder / ".small-doge" / "doge-float32")
    shutil.copytree(folder / "doge", folder / "new")
    (folder / "llama").mkdir()
    (folder / "llama" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "llama" / "model.safetensors").write_bytes(b"")
    assert registry.find("new:latest").name == "new"
    assert set(registry.entries) == {"base", "doge", "new", "other"}


@pytest.mark.parametrize("name", ["../models/doge", "/etc", "%2e%2e/doge", "", "doge/../doge"])
def test_names_reach_no_other_paths(folder, name):
    with pytest.raises(ApiError) as caught:
        build(folder).find(name)
    assert caught.value.status == 404


def test_models_have_names_of_their_own(folder):
    def name(*models):
        return list(ModelRegistry(ServeSettings(models=models)).entries)

    first, second = str(folder / "doge"), str(folder / "other")
    assert name(f"mine={first}", second) == ["mine", "other"]
    shutil.copytree(folder / "doge", folder / "inner" / "doge")
    assert name(first, str(folder / "inner" / "doge")) == ["doge", "inner/doge"]
    with pytest.raises(UserError, match="two models are called x"):
        name(f"x={first}", f"x={second}")
    with pytest.raises(UserError, match="NAME=FOLDER"):
        name("x=")
    with pytest.raises(UserError, match="is not a folder; did you mean .*doge"):
        name(str(folder / "dog"))


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(ApiError, match="holds no exported model"):
        build(tmp_path).find(None)


def test_memory_of_a_hub_name_is_that_of_its_cached_files(folder, monkeypatch):
    cached = {"smalldoge/doge": folder / "doge"}
    monkeypatch.setattr("small_doge.webui.model_files.find_cached_folder", cached.get)
    registry = ModelRegistry(ServeSettings(models=("smalldoge/doge", "smalldoge/new")))
    known, unknown = registry.find("doge"), registry.find("new")
    assert known.count_bytes() == estimate_bytes(folder / "doge") > unknown.count_bytes()
    assert known.describe()["can_chat"] and known.created
    assert not unknown.describe()["can_chat"] and not unknown.created


def test_a_model_that_must_be_downloaded_is_said_to_be_of_unknown_size(folder, monkeypatch):
    told, cached = [], {}
    monkeypatch.setattr("small_doge.webui.model_files.CACHE_BYTES", 1000)
    monkeypatch.setattr("small_doge.webui.model_files.find_cached_folder", cached.get)
    registry = ModelRegistry(ServeSettings(models=("smalldoge/new",), models_dir=str(folder), threads=1), told.append)

    def download(entry):
        if entry.source == "smalldoge/new":
            cached["smalldoge/new"] = folder / "doge"
        return open_engine(entry.folder, threads=1)

    monkeypatch.setattr(registry, "_open", download)

    async def work():
        with await registry.acquire("other"):
            pass
        registry.budget = estimate_bytes(folder / "absent") + registry.find("other").count_bytes()
        with await registry.acquire("new") as new:
            assert not new.describe()["changed"] and new.created
            assert not registry.find("other").is_loaded  # it made room, as the new one is larger than assumed
        assert any("new is not on this machine yet" in line for line in told)

    run(work, registry)
