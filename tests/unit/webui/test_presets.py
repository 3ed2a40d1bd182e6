"""Presets: kept beside conversations, and part of their exports."""

import sqlite3
from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from tests.unit.webui.chats_server import make_app


PATH = "/api/v1/presets"
PIRATE = {"system_prompt": "Speak like a pirate.", "sampling": {"temperature": 0.3, "seed": None}}


@pytest.fixture
def client(tmp_path):
    return TestClient(make_app(tmp_path / "chats.db"), raise_server_exceptions=False)


def list_presets(client):
    presets = client.get(PATH).json()["presets"]
    assert all(preset.pop("updated_at") for preset in presets)
    return presets


@pytest.mark.parametrize("name", ["Pirate", "a/b", "1 + 1 = 2?", "Ärger, 中文 #1", "export"])
def test_a_preset_is_kept_replaced_and_deleted_under_any_name(client, name):
    address = f"{PATH}/{name.replace('?', '%3F').replace('#', '%23')}"
    assert client.put(address, json=PIRATE).status_code == 201
    assert list_presets(client) == [{"name": name, **PIRATE}]
    assert client.put(address, json={"system_prompt": "Be brief."}).status_code == 200
    assert list_presets(client) == [{"name": name, "system_prompt": "Be brief.", "sampling": {}}]
    assert client.delete(address).status_code == 204
    assert client.delete(address).status_code == 404
    assert list_presets(client) == []


def test_presets_are_listed_by_name(client):
    for name in ("c", "a", "b"):
        client.put(f"{PATH}/{name}", json={})
    assert [preset["name"] for preset in list_presets(client)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("%20a", {}, "name"),
        ("a%07b", {}, "name"),
        ("a", {"sampling": []}, "sampling"),
        ("a", {"sampling": {"x": "y" * 70_000}}, "sampling"),
        ("a", {"system_prompt": "x" * 100_001}, "system_prompt"),
        ("a" * 301, {}, "name"),
    ],
)
def test_what_is_no_preset_is_refused(client, name, body, param):
    answer = client.put(f"{PATH}/{name}", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    assert list_presets(client) == []


def test_a_file_that_stays_locked_is_no_fault_of_the_name(client, tmp_path, monkeypatch):
    monkeypatch.setattr("small_doge.webui.chat_tables.BUSY_SECONDS", 0.1)
    client = TestClient(make_app(tmp_path / "locked.db"), raise_server_exceptions=False)
    with closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = client.put(f"{PATH}/a", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        other.execute("ROLLBACK")
    assert client.put(f"{PATH}/a", json={}).status_code == 201


def test_unknown_fields_are_named_in_a_header(client):
    answer = client.put(f"{PATH}/a", json={**PIRATE, "colour": "red"})
    assert answer.headers["X-Small-Doge-Ignored"] == "colour"


def test_an_export_holds_the_presets_and_an_import_leaves_those_that_are_there(client, tmp_path):
    client.put(f"{PATH}/Pirate", json=PIRATE)
    client.post("/api/v1/chats", json={"title": "c"})
    export = client.get("/api/v1/chats/export").json()
    other = TestClient(make_app(tmp_path / "other.db"))
    other.put(f"{PATH}/Brief", json={"system_prompt": "Be brief."})
    answer = other.post("/api/v1/chats/import", json=export)
    assert "X-Small-Doge-Ignored" not in answer.headers
    assert (answer.json()["imported"], answer.json()["imported_presets"]) == (1, 1)
    assert [preset["name"] for preset in list_presets(other)] == ["Brief", "Pirate"]
    other.put(f"{PATH}/Pirate", json={"system_prompt": "Mine."})
    again = other.post("/api/v1/chats/import", json=export).json()
    assert (again["imported_presets"], again["skipped_presets"]) == (0, 1)
    assert list_presets(other)[1]["system_prompt"] == "Mine."


def test_a_wrong_preset_of_an_import_leaves_nothing_of_it(client):
    wrong = {"chats": [{"title": "c"}], "presets": [{"name": ".."}]}
    assert client.post("/api/v1/chats/import", json=wrong).status_code == 400
    assert client.get("/api/v1/chats").json()["total"] == 0
