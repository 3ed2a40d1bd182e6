"""The routes of conversations, without the rest of the server."""

import sqlite3
from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from tests.unit.webui.chats_server import make_app


PATH = "/api/v1/chats"


@pytest.fixture
def client(tmp_path):
    return TestClient(make_app(tmp_path / "chats.db"), raise_server_exceptions=False)


def create(client, **fields):
    response = client.post(PATH, json=fields)
    assert response.status_code == 201, response.text
    return response.json()


def say(id, parent_id=None, content="text", role="user"):
    return {"id": id, "parent_id": parent_id, "role": role, "content": content}


def check_refused(response, status, code=None, param=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert code is None or error["code"] == code
    assert param is None or error["param"] == param
    return error["message"]


def test_an_empty_conversation_has_every_field(client):
    chat = create(client)
    assert client.get(f"{PATH}/{chat['id']}").json() == chat
    times = [chat.pop("created_at"), chat.pop("updated_at")]
    assert all(time.endswith("Z") and "T" in time for time in times)
    assert len(chat.pop("id")) == 36
    assert chat == {
        "title": "",
        "model": None,
        "folder": None,
        "tags": [],
        "pinned": False,
        "archived": False,
        "num_messages": 0,
        "system_prompt": "",
        "settings": {},
        "messages": [],
        "current_id": None,
    }


def test_a_whole_conversation_comes_back_as_it_was_sent(client):
    sent = {
        "id": "b7a1f6de-8d0f-4c6e-9f0f-0d6f5a1f2c3d",
        "title": "Häuser 房子",
        "model": "doge",
        "folder": "Work",
        "tags": ["a", "b"],
        "pinned": True,
        "archived": True,
        "created_at": "2026-01-02T03:04:05.000006Z",
        "updated_at": "2026-01-02T03:04:05.000006Z",
        "system_prompt": "Be brief.",
        "settings": {"temperature": 0.5, "stop": ["x"]},
        "current_id": "b",
        "messages": [
            say("a") | {"model": None, "created_at": "2026-01-02T03:04:05.000006Z", "stats": None},
            say("b", "a", "an answer", "assistant")
            | {"model": "doge", "created_at": "2026-01-02T03:04:06.000000Z", "stats": {"tokens_per_second": 1000.5}},
            say("c", "a", "another", "assistant")
            | {"model": "doge", "created_at": "2026-01-02T03:04:07.000000Z", "stats": {}},
        ],
    }
    assert create(client, **sent) == sent | {"num_messages": 3}


def test_names_of_the_guides_server_are_taken(client):
    chat = create(client, chat_settings={"top_p": 0.9}, folder_id="Work")
    assert chat["settings"] == {"top_p": 0.9} and chat["folder"] == "Work"
    changed = client.put(f"{PATH}/{chat['id']}", json={"chat_settings": {}, "folder_id": None}).json()
    assert changed["settings"] == {} and changed["folder"] is None


def test_messages_that_name_no_parent_follow_one_another(client):
    plain = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    chat = create(client, messages=plain)
    first, second = chat["messages"]
    assert (first["parent_id"], second["parent_id"]) == (None, first["id"]) and chat["current_id"] == second["id"]
    added = client.post(f"{PATH}/{chat['id']}/messages", json={"messages": plain}).json()
    assert [m["parent_id"] for m in added["messages"][2:]] == [second["id"], added["messages"][2]["id"]]
    assert added["current_id"] == added["messages"][3]["id"]


def test_only_the_sent_fields_change(client):
    chat = create(client, title="a", tags=["x"], messages=[say("a"), say("b", "a")], pinned=True)
    changed = client.put(f"{PATH}/{chat['id']}", json={"title": "b"}).json()
    assert changed == chat | {"title": "b"}
    changed = client.put(f"{PATH}/{chat['id']}", json={"current_id": "a", "title": None, "tags": None}).json()
    assert changed == chat | {"title": "", "tags": [], "current_id": "a"}


def test_filing_leaves_the_order_and_new_text_changes_it(client):
    old, new = create(client, messages=[say("a")]), create(client)
    client.put(f"{PATH}/{old['id']}", json={"title": "x", "folder": "f", "tags": ["t"], "current_id": "a"})
    assert [chat["id"] for chat in client.get(PATH).json()["chats"]] == [new["id"], old["id"]]
    client.patch(f"{PATH}/{old['id']}/messages/a", json={"content": "new"})
    assert [chat["id"] for chat in client.get(PATH).json()["chats"]] == [old["id"], new["id"]]


def test_replaced_messages_are_those_that_were_sent_in_their_order(client):
    chat = create(client, messages=[say("a"), say("b", "a"), say("c", "a")], current_id="c")
    sent = [say("c"), say("new", "c"), say("a", "new", "changed")]
    changed = client.put(f"{PATH}/{chat['id']}", json={"messages": sent}).json()
    assert [{name: m[name] for name in sent[0]} for m in changed["messages"]] == sent
    assert changed["current_id"] == "c"
    assert changed["messages"][0]["created_at"] == chat["messages"][2]["created_at"]
    assert client.put(f"{PATH}/{chat['id']}", json={"messages": []}).json()["current_id"] is None


def test_a_message_changes_alone(client):
    chat = create(client, messages=[say("a"), say("b", "a")])
    path = f"{PATH}/{chat['id']}/messages/a"
    message = client.patch(path, json={"content": "new", "stats": {"n": 1}}).json()
    assert message == chat["messages"][0] | {"content": "new", "stats": {"n": 1}}
    assert client.get(f"{PATH}/{chat['id']}").json()["messages"] == [message, chat["messages"][1]]
    assert client.get(PATH, params={"search": "new"}).json()["total"] == 1
    check_refused(client.patch(f"{PATH}/{chat['id']}/messages/z", json={}), 404)


def test_an_append_that_is_sent_again_adds_nothing_twice(client):
    chat = create(client, messages=[say("a")])
    path = f"{PATH}/{chat['id']}/messages"
    body = {"messages": [say("b", "a", "text")]}
    first, second = client.post(path, json=body).json(), client.post(path, json=body).json()
    assert first["messages"] == second["messages"] and len(first["messages"]) == 2
    check_refused(client.post(path, json={"messages": [say("b", "a", "other")]}), 409)


def test_lists_are_filtered_and_paged_with_pinned_ones_first(client):
    for i in range(5):
        create(client, title=f"c{i}", pinned=i == 1, archived=i == 2, folder="F" if i == 3 else None, tags=[f"t{i}"])

    def titles(**params):
        answer = client.get(PATH, params=params).json()
        return [chat["title"] for chat in answer["chats"]], answer["total"]

    assert titles() == (["c1", "c4", "c3", "c2", "c0"], 5)
    assert titles(limit=2, offset=1) == (["c4", "c3"], 5)
    assert titles(archived=True) == (["c2"], 1) and titles(archived=False)[1] == 4
    assert titles(folder="F") == (["c3"], 1) and titles(folder="")[1] == 4
    assert titles(tag="t4") == (["c4"], 1) and titles(tag="t") == ([], 0)
    assert titles(search="C3") == (["c3"], 1)
    assert "messages" not in client.get(PATH).json()["chats"][0]


@pytest.mark.parametrize(
    ("messages", "current_id", "param"),
    [
        ([say("a", "gone")], None, "messages"),
        ([say("a", "b"), say("b", "a")], None, "messages"),
        ([say("a", "a")], None, "messages"),
        ([say("a"), say("a")], None, "messages"),
        ([say("a")], "b", "current_id"),
        ([], "b", "current_id"),
    ],
    ids=["no parent", "circle", "own parent", "same id", "no current", "empty"],
)
def test_what_is_no_tree_is_refused_and_changes_nothing(client, messages, current_id, param):
    body = {"messages": messages, "current_id": current_id}
    check_refused(client.post(PATH, json=body), 422, "invalid_messages", param)
    check_refused(client.post(f"{PATH}/import", json={"chats": [{}, body]}), 422)
    assert client.get(PATH).json()["total"] == 0
    chat = create(client, messages=[say("x")])
    check_refused(client.put(f"{PATH}/{chat['id']}", json=body), 422, param=param)
    assert client.get(f"{PATH}/{chat['id']}").json() == chat


@pytest.mark.parametrize(
    "body",
    [
        {"title": "x" * 501},
        {"title": 1},
        {"tags": ["x"] * 2 + [str(i) for i in range(40)]},
        {"tags": [""]},
        {"tags": ["x" * 65]},
        {"settings": {"a": "x" * 70_000}},
        {"settings": []},
        {"pinned": "perhaps"},
        {"id": "../etc/passwd"},
        {"id": "export"},
        {"created_at": "yesterday"},
        {"created_at": "0001-01-01T00:00:00+14:00"},
        {"messages": [{"role": "robot", "content": ""}]},
        {"messages": [{"role": "user"}]},
        {"messages": [say("a", content="x" * 1_000_001)]},
        {"messages": "x"},
        [],
        None,
    ],
    ids=str,
)
def test_fields_beyond_their_limits_are_refused(client, body):
    check_refused(client.post(PATH, json=body), 400)
    assert client.get(PATH).json()["total"] == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "\\ud800"}',
        '{"tags": ["\\udfff"]}',
        '{"settings": {"\\ud800": 1}}',
        '{"settings": {"a": NaN}}',
        '{"messages": [{"role": "user", "content": "\\udc00"}]}',
        '{"messages": [{"id": "\\ud800", "role": "user", "content": ""}]}',
        '{"messages": [{"role": "user", "content": "", "stats": {"a": [1e999]}}]}',
        '{"title": ',
        "[" * 100_000,
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_what_is_no_unicode_or_json_is_refused(client, text):
    for method, path in (("POST", PATH), ("PUT", f"{PATH}/x"), ("POST", f"{PATH}/import")):
        body = f'{{"chats": [{text}]}}' if path.endswith("import") and isinstance(text, str) else text
        response = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        check_refused(response, 400)


def test_too_many_and_too_deep_messages_are_refused(client):
    deep = [say("m0"), *(say(f"m{i}", f"m{i - 1}") for i in range(1, 5001))]
    assert "ancestors" in check_refused(client.post(PATH, json={"messages": deep}), 422)
    chat = create(client, messages=deep[:-1])
    check_refused(client.post(f"{PATH}/{chat['id']}/messages", json={"messages": deep[-1:]}), 422)
    wide = [say(f"w{i}", "m0") for i in range(5001)]
    check_refused(client.post(f"{PATH}/{chat['id']}/messages", json={"messages": wide}), 422)


@pytest.mark.parametrize("name", ["gone", "a b", "x" * 100, "%ff", "..%2f..%2fetc", "%00"])
def test_unknown_ids_are_not_found(client, name):
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/export"), ("PATCH", "/messages/a")):
        body = {} if method in ("PUT", "PATCH") else None
        check_refused(client.request(method, f"{PATH}/{name}{path}", json=body), 404)
    check_refused(client.post(f"{PATH}/{name}/messages", json={"messages": [say("a")]}), 404)


def test_an_id_that_is_taken_is_a_conflict(client):
    chat = create(client, id="one", title="first")
    check_refused(client.post(PATH, json={"id": "one"}), 409, "already_exists")
    assert client.get(f"{PATH}/one").json() == chat


def test_a_deleted_conversation_is_gone_with_its_messages(client):
    chat = create(client, messages=[say("a", content="needle")])
    assert client.delete(f"{PATH}/{chat['id']}").status_code == 204
    check_refused(client.delete(f"{PATH}/{chat['id']}"), 404)
    assert client.get(PATH, params={"search": "needle"}).json() == {"chats": [], "total": 0}
    create(client, id=chat["id"], messages=[say("a")])


def test_ignored_fields_are_named_in_a_header(client):
    response = client.post(PATH, json={"shared": True, "messages": [say("a") | {"likes": 1, "Ä\n": 1}]})
    assert response.headers["X-Small-Doge-Ignored"] == "shared, messages.likes, messages."
    chat = response.json()
    response = client.put(f"{PATH}/{chat['id']}", json={"title": "x", "id": "other", "likes": 3})
    assert response.headers["X-Small-Doge-Ignored"] == "id, likes"
    assert "X-Small-Doge-Ignored" not in client.put(f"{PATH}/{chat['id']}", json={"title": "x"}).headers


def test_an_export_imports_elsewhere_unchanged(client, tmp_path):
    for i in range(3):
        create(
            client, title=f"c{i}", messages=[say("a", content="ä 中\0\r\n"), say("b", "a")], current_id="a", tags=["t"]
        )
    export = client.get(f"{PATH}/export")
    assert export.headers["content-disposition"].startswith("attachment")
    content = export.json()
    assert content["format"] == "small-doge-chats" and content["version"] == 1
    other = TestClient(make_app(tmp_path / "other.db"))
    response = other.post(f"{PATH}/import", json=content)
    assert response.json()["imported"] == 3 and "X-Small-Doge-Ignored" not in response.headers
    assert other.get(f"{PATH}/export").json()["chats"] == content["chats"]
    again = other.post(f"{PATH}/import", json={"chats": [*content["chats"], {"title": "new"}]}).json()
    assert again["skipped_ids"] == [chat["id"] for chat in content["chats"]]
    assert (again["imported"], again["skipped"], again["imported_presets"]) == (1, 3, 0)


def test_one_exported_conversation_imports_too(client, tmp_path):
    chat = create(client, title="one", messages=[say("a")])
    content = client.get(f"{PATH}/{chat['id']}/export").json()
    assert content["chats"] == [chat]
    other = TestClient(make_app(tmp_path / "other.db"))
    assert other.post(f"{PATH}/import", json=content).json()["imported"] == 1


def test_exports_of_a_newer_version_or_another_program_are_refused(client):
    check_refused(client.post(f"{PATH}/import", json={"version": 2, "chats": []}), 400, param="version")
    check_refused(client.post(f"{PATH}/import", json={"format": "other", "chats": []}), 400, param="format")


def test_markdown_holds_what_was_said_as_text_alone(client):
    content = "<script>alert(1)</script>\n```\n````js\n[x](javascript:alert(1))\r````\rend"
    chat = create(
        client,
        title="<img src=x onerror=alert(1)> [x](javascript:1) & # `c`",
        system_prompt="Be <b>brief</b>.",
        messages=[say("a", content=content), say("b", "a", "yes", "assistant"), say("c", "a", "hidden", "assistant")],
        current_id="b",
    )
    response = client.get(f"{PATH}/{chat['id']}/export", params={"format": "markdown"})
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    text = response.content.decode()
    assert f"`````text\n{content}\n`````" in text
    title = text.split("\n")[0]
    assert "<" not in title and "\\[x\\]\\(" in title
    assert "## System prompt\n\n```text\nBe <b>brief</b>.\n```" in text
    assert "## Assistant\n\n```text\nyes\n```" in text and "hidden" not in text


def test_a_file_that_stays_locked_is_told_and_serves_again_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr("small_doge.webui.chat_tables.BUSY_SECONDS", 0.1)
    client = TestClient(make_app(tmp_path / "chats.db"), raise_server_exceptions=False)
    with closing(sqlite3.connect(tmp_path / "chats.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        response = client.post(PATH, json={})
        assert "locked" in check_refused(response, 503, "storage_failed") and response.headers["Retry-After"]
        assert client.get(PATH).json()["total"] == 0
        other.execute("ROLLBACK")
    create(client)
