"""Conversations in their file: search, concurrency, and files that are not as they should be."""

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.webui.chats_server import make_context

from small_doge.utils.errors import UserError
from small_doge.webui import chat_tables
from small_doge.webui.chat_forms import Append, ChatChange, ChatForm, MessageForm, TreeError, check_tree
from small_doge.webui.chat_store import ChatStore, fold
from small_doge.webui.chat_tables import find_database


NEWER = chat_tables.SCHEMA_VERSION + 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MORE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path):
    with closing(ChatStore(tmp_path / "chats.db")) as store:
        yield store


def say(content, **fields):
    return {"role": "user", "content": content, **fields}


def find(store, search):
    return [chat.id for chat in store.list_chats(search, limit=500)[0]]


def append_many(path, count):
    """Add messages from a process of its own."""
    with closing(ChatStore(path)) as store:
        for i in range(count):
            store.append_messages("shared", Append(messages=[say(f"process {i}")]))


@MORE
@given(title=TEXT, content=TEXT)
def test_any_text_is_found_and_comes_back_unchanged(store, title, content):
    chat = store.create_chat(ChatForm(title=title, messages=[say(content)]))
    back = store.read_chat(chat.id)
    assert (back.title, back.messages[0].content) == (title, content)
    assert chat.id in find(store, title) and chat.id in find(store, content)
    assert chat.id in find(store, content.upper()) or fold(content) != fold(content.upper())
    store.delete_chat(chat.id)
    assert chat.id not in find(store, title + content)


@MORE
@given(contents=st.lists(TEXT, min_size=1, max_size=5), search=TEXT)
def test_the_index_finds_what_a_plain_look_finds(store, contents, search):
    chat = store.create_chat(ChatForm(messages=[say(content) for content in contents]))
    for query in (search, *(content[1:4] for content in contents)):
        words = fold(query).split()
        is_there = all(any(word in fold(content) for content in contents) for word in words)
        assert (chat.id in find(store, query)) == is_there
        store.database.indexed, indexed = False, store.database.indexed
        assert (chat.id in find(store, query)) == is_there
        store.database.indexed = indexed
    store.delete_chat(chat.id)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("今天天气很好", "天气"),
        ("今天天气很好", "天气很"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ('say "x" OR y*', '"x" or'),
        ("100% of_it", "0% f_i"),
        ("one two three", "three one"),
        ("NEAR(a b)", "near(a"),
    ],
)
def test_search_takes_any_script_and_reads_no_operators(store, text, search):
    chat = store.create_chat(ChatForm(messages=[say(text)]))
    store.create_chat(ChatForm(title="something else"))
    assert find(store, search) == [chat.id]
    assert find(store, search + "zzz") == []


def test_words_may_stand_in_title_and_messages(store):
    chat = store.create_chat(ChatForm(title="Trains", messages=[say("to Paris"), say("at noon")]))
    assert find(store, "trains paris noon") == [chat.id]


def test_search_forgets_what_was_changed_or_deleted(store):
    chat = store.create_chat(ChatForm(title="oldtitle", messages=[say("first text", id="a")]))
    store.change_chat(chat.id, ChatChange(title="new", messages=[say("second", id="a")]))
    assert find(store, "oldtitle") == find(store, "first") == []
    assert find(store, "second") == [chat.id]


@st.composite
def trees(draw):
    """Parents of messages 0..n-1, in a random order, and which of them is a mistake, if any."""
    size = draw(st.integers(1, 12))
    parents = [None if i == 0 else draw(st.none() | st.integers(0, i - 1)) for i in range(size)]
    order = draw(st.permutations(range(size)))
    return [(f"m{i}", None if parents[i] is None else f"m{parents[i]}") for i in order]


@MORE
@given(tree=trees())
def test_any_tree_is_kept_in_its_order(store, tree):
    chat = store.create_chat(ChatForm(messages=[say("", id=name, parent_id=parent) for name, parent in tree]))
    assert [(m.id, m.parent_id) for m in store.read_chat(chat.id).messages] == tree
    changed = store.change_chat(chat.id, ChatChange(messages=[say("x", id=n, parent_id=p) for n, p in tree[::-1]]))
    assert [(m.id, m.parent_id) for m in changed.messages] == tree[::-1]


@MORE
@given(tree=trees(), data=st.data())
def test_a_circle_or_a_missing_parent_is_refused_wherever_it_is(tree, data):
    at = data.draw(st.integers(0, len(tree) - 1))
    parents = dict(tree)
    name = tree[at][0]
    below = [other for other in parents if name in walk_up(parents, other)]
    wrong = data.draw(st.sampled_from([*below, "gone"]))
    forms = [MessageForm(**say("", id=n, parent_id=wrong if n == name else p)) for n, p in tree]
    with pytest.raises(TreeError):
        check_tree({}, forms)


def walk_up(parents, node):
    while node is not None:
        yield node
        node = parents[node]


def test_threads_and_a_process_write_into_one_conversation_without_loss(store):
    store.create_chat(ChatForm(id="shared"))
    process = make_context().Process(target=append_many, args=(store.database.path, 10))
    process.start()
    failures = []

    def write(number):
        try:
            for i in range(4):
                store.append_messages("shared", Append(messages=[say(f"thread {number} {i}")]))
                store.read_chat("shared"), store.list_chats("thread")
        except Exception as error:  # noqa: BLE001 (told by the test)
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.join()
    assert process.exitcode == 0 and not failures
    chat = store.read_chat("shared")
    wanted = {f"process {i}" for i in range(10)} | {f"thread {n} {i}" for n in range(4) for i in range(4)}
    assert len(chat.messages) == 26 and {message.content for message in chat.messages} == wanted
    assert [m.parent_id for m in chat.messages] == [None, *(m.id for m in chat.messages[:-1])]


def test_two_processes_make_the_file_at_once(tmp_path):
    path = tmp_path / "chats.db"
    stores, failures = [], []

    def make():
        try:
            stores.append(ChatStore(path))
        except UserError as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(stores) == 8
    chat = stores[0].create_chat(ChatForm(title="x"))
    assert all(store.read_chat(chat.id) == chat for store in stores)
    for store in stores:
        store.close()


def test_an_export_is_of_one_moment(store):
    for i in range(3):
        store.create_chat(ChatForm(title=f"c{i}", created_at=f"2026-01-0{i + 1}T00:00:00Z"))
    chats = store.iterate_export()
    first = next(chats)
    store.delete_chat(store.list_chats("c2")[0][0].id)
    assert [first.title, *(chat.title for chat in chats)] == ["c0", "c1", "c2"]


def test_what_is_confirmed_is_synced_and_the_file_is_private(store):
    with store.database.session() as session:
        settings = [
            session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "foreign_keys", "journal_mode")
        ]
    assert settings == [2, 1, "wal"]
    assert stat.S_IMODE(store.database.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"{}", b"SQLite format 2\0"], ids=repr)
def test_a_file_of_another_kind_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"notes.txt is not an SQLite database .*--chats"):
        ChatStore(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_a_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE chats (id TEXT)")
    content = path.read_bytes()
    with pytest.raises(UserError, match="another program"):
        ChatStore(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def fill(path):
    with closing(ChatStore(path)) as store:
        for i in range(20):
            store.create_chat(ChatForm(title=f"c{i}", messages=[say("x" * 3000)]))


def test_a_newer_file_is_left_alone(tmp_path):
    path = tmp_path / "chats.db"
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    with pytest.raises(UserError, match="newer small-doge .*update"):
        ChatStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("keep", [100, 4096, 20000, 60001])
def test_a_torn_file_is_told_with_the_remedy_and_left_alone(tmp_path, keep):
    path = tmp_path / "chats.db"
    fill(path)
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"chats.db.* damaged .*backup.*--chats"):
        ChatStore(path)
    assert path.read_bytes() == content


def test_overwritten_pages_are_told(tmp_path):
    path = tmp_path / "chats.db"
    fill(path)
    content = bytearray(path.read_bytes())
    content[4096 : 4 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        ChatStore(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("place", ["folder", "file/chats.db", "/proc/nowhere/chats.db"])
def test_a_place_that_can_hold_no_file_is_told(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--chats"):
        ChatStore(tmp_path / place)


def test_an_older_file_is_migrated_once(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    fill(path)
    monkeypatch.setattr(chat_tables, "SCHEMA_VERSION", NEWER)
    monkeypatch.setattr(chat_tables, "MIGRATIONS", {NEWER - 1: ("ALTER TABLE chats ADD COLUMN mood TEXT",)})
    for _ in range(2):
        with closing(ChatStore(path)) as store:
            assert store.list_chats()[1] == 20
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (NEWER,)
        assert "mood" in [row[1] for row in connection.execute("PRAGMA table_info(chats)")]


def test_a_file_of_the_first_version_becomes_what_a_new_one_is(tmp_path):
    columns = {}
    for name in ("old", "new"):
        path = tmp_path / name
        fill(path)
        if name == "old":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE presets")
                connection.execute("PRAGMA user_version = 1")
            fill(path)
        with closing(sqlite3.connect(path)) as connection:
            columns[name] = connection.execute("PRAGMA table_info(presets)").fetchall()
    assert columns["old"] == columns["new"] != []


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    fill(path)
    content = path.read_bytes()
    monkeypatch.setattr(chat_tables, "SCHEMA_VERSION", NEWER)
    monkeypatch.setattr(chat_tables, "MIGRATIONS", {NEWER - 1: ("ALTER TABLE chats ADD COLUMN mood TEXT", "NO SQL")})
    with pytest.raises(UserError):
        ChatStore(path)
    assert path.read_bytes() == content


def test_without_the_index_search_still_works_and_later_catches_up(tmp_path, monkeypatch):
    path = tmp_path / "chats.db"
    fill(path)
    with monkeypatch.context() as patch:
        patch.setattr(chat_tables, "can_index", lambda: False)
        with closing(ChatStore(path)) as store:
            chat = store.create_chat(ChatForm(messages=[say("needle")]))
            assert find(store, "needle") == [chat.id]
    with closing(ChatStore(path)) as store:
        assert store.database.indexed and find(store, "needle") == [chat.id]
        store.delete_chat(chat.id)


@pytest.mark.parametrize(
    ("chats", "environment", "path"),
    [
        (None, {"XDG_DATA_HOME": "/data"}, "/data/small-doge/chats.db"),
        (None, {"XDG_DATA_HOME": "relative"}, "~/.local/share/small-doge/chats.db"),
        (None, {}, "~/.local/share/small-doge/chats.db"),
        ("mine.db", {"XDG_DATA_HOME": "/data"}, "mine.db"),
        ("~/mine.db", {}, "~/mine.db"),
        ("sqlite:///mine.db", {}, "mine.db"),
        ("sqlite:////srv/chats.db", {}, "/srv/chats.db"),
        ("sqlite:///~/mine.db", {}, "~/mine.db"),
        ("sqlite+aiosqlite:////srv/chats.db", {}, "/srv/chats.db"),
    ],
)
def test_conversations_lie_where_they_should(chats, environment, path):
    assert find_database(chats, environment) == Path(path).expanduser()


@pytest.mark.parametrize("name", ["what?.db", "a#b%20c.db", ":memory:", "file:x?mode=memory"])
def test_conversations_lie_in_the_file_of_that_very_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with closing(ChatStore(name)) as store:
        chat = store.create_chat(ChatForm(messages=[say("hello")]))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with closing(ChatStore(tmp_path / name)) as store:
        assert find(store, "hello") == [chat.id]


@pytest.mark.parametrize("chats", ["postgresql://me:secret@db/x", "sqlite://", "sqlite:///:memory:", "://x"])
def test_addresses_of_other_databases_are_refused_without_their_password(chats):
    with pytest.raises(UserError, match="DATABASE_URL=sqlite:") as refused:
        find_database(chats)
    assert "secret" not in str(refused.value)
