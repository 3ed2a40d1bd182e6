"""The database file of conversations: its tables, its versions, and how it is opened."""

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Engine, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ..utils.errors import UserError


SCHEMA_VERSION = 2
# What leads from a version to the next, as statements of SQL. A new file gets the tables as they are below.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "CREATE TABLE presets (name VARCHAR NOT NULL, system_prompt VARCHAR NOT NULL, sampling JSON NOT NULL, "
        "updated_at VARCHAR NOT NULL, PRIMARY KEY (name))",
    ),
}
# Tells our files from other programs'; the letters "dogc".
APPLICATION_ID = 0x646F6763
BUSY_SECONDS = 15.0
MAGIC = b"SQLite format 3\0"
SEARCH = "CREATE VIRTUAL TABLE message_search USING fts5(folded, content='messages', content_rowid='key', tokenize='trigram case_sensitive 1')"
FORGET = "INSERT INTO message_search (message_search, rowid, folded) VALUES ('delete', old.key, old.folded);"
LEARN = "INSERT INTO message_search (rowid, folded) VALUES (new.key, new.folded);"
TRIGGERS = {
    "message_added": f"AFTER INSERT ON messages BEGIN {LEARN} END",
    "message_removed": f"AFTER DELETE ON messages BEGIN {FORGET} END",
    "message_changed": f"AFTER UPDATE OF folded ON messages BEGIN {FORGET} {LEARN} END",
}


class Base(DeclarativeBase):
    """The tables."""


class Chat(Base):
    """A conversation."""

    __tablename__ = "chats"

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    folded: Mapped[str]
    model: Mapped[str | None]
    folder: Mapped[str | None] = mapped_column(index=True)
    tags: Mapped[list[str]] = mapped_column(JSON)
    pinned: Mapped[bool]
    archived: Mapped[bool]
    system_prompt: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    current_id: Mapped[str | None]
    created_at: Mapped[str]
    updated_at: Mapped[str]
    messages: Mapped[list["Message"]] = relationship(
        order_by="Message.position", cascade="all, delete-orphan", passive_deletes=True
    )

    __table_args__ = (Index("chats_by_time", "pinned", "updated_at", "id"),)

    @property
    def num_messages(self) -> int:
        """Count the messages, which are loaded for it; lists count in SQL."""
        return len(self.messages)


class Message(Base):
    """A message; its text stands a second time as it is searched."""

    __tablename__ = "messages"

    key: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[str] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    id: Mapped[str]
    parent_id: Mapped[str | None]
    position: Mapped[int]
    role: Mapped[str]
    content: Mapped[str]
    folded: Mapped[str]
    model: Mapped[str | None]
    created_at: Mapped[str]
    stats: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (
        UniqueConstraint("chat_id", "id"),
        ForeignKeyConstraint(
            ["chat_id", "parent_id"], ["messages.chat_id", "messages.id"], deferrable=True, initially="DEFERRED"
        ),
        Index("messages_by_parent", "chat_id", "parent_id"),
    )


class Preset(Base):
    """A named system prompt with sampling options."""

    __tablename__ = "presets"

    name: Mapped[str] = mapped_column(primary_key=True)
    system_prompt: Mapped[str]
    sampling: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[str]


def find_database(chats: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where conversations lie.

    Args:
        chats: a file, or an address such as `sqlite:////path/to/chats.db`; in the user's data folder if None.
        environment: names the data folder.

    Raises:
        UserError: an address names no SQLite file.
    """
    if chats is None:
        data = environment.get("XDG_DATA_HOME", "")
        folder = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
        return folder / "small-doge" / "chats.db"
    scheme, is_address, _ = chats.partition("://")
    if not is_address:
        return Path(chats).expanduser()
    try:
        url = make_url(chats)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        raise UserError(
            f"conversations are kept in an SQLite file, and the address {scheme}://... names none; name one with "
            "--chats FILE or DATABASE_URL=sqlite:////path/to/chats.db"
        )
    return Path(url.database).expanduser()


def open_database(path: Path) -> tuple[Engine, bool]:
    """Open the file, or make it; return its engine and whether it has an index for search.

    Raises:
        UserError: the file is another program's, damaged, newer than this version, or can't be written.
    """
    prepare_file(path)
    engine = connect(path)
    try:
        indexed = prepare_tables(path, engine)
        use_write_ahead_log(engine)
    except Exception as error:
        engine.dispose()
        cause = getattr(error, "orig", error)
        if isinstance(cause, sqlite3.Error):
            raise explain(path, cause) from error
        raise
    return engine, indexed


def prepare_file(path: Path) -> None:
    """Make the file, which only its owner may read, or see that it is SQLite's and can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise UserError(
            f"conversations can't be kept in {path} ({error.strerror}); name a file that can be written with --chats FILE"
        ) from error
    if start not in (b"", MAGIC):
        raise explain_foreign(path, "is not an SQLite database")


def explain(path: Path, error: sqlite3.Error) -> UserError:
    """Say what is wrong with the file, and what helps."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return UserError(
            f"the conversations in {path} are damaged ({error}); nothing was changed. Put a backup in its place, or save "
            f"what can be read with: sqlite3 {path} .recover | sqlite3 recovered.db, or name another file with --chats FILE"
        )
    return UserError(
        f"conversations can't be kept in {path} ({error}); see that nothing else holds the file, that it can be written "
        "and the disk is not full, or name another with --chats FILE"
    )


def explain_foreign(path: Path, what: str) -> UserError:
    """Say that the file is not ours."""
    return UserError(
        f"{path} {what} of conversations that small-doge made; it was left as it is. Name another file with --chats FILE "
        "(or DATABASE_URL), or move this one away"
    )


def connect(path: Path) -> Engine:
    """Make an engine whose connections keep what they confirm; transactions that write begin by taking the lock."""
    address = URL.create("sqlite", database=str(path.absolute()))  # not parsed, as ? and :memory: would be
    engine = create_engine(address, pool_size=8, max_overflow=64, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's late one
        for setting in ("foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def prepare_tables(path: Path, engine: Engine) -> bool:
    """Check the file, make or migrate its tables, and say whether it has an index for search."""
    with engine.execution_options(writes=True).begin() as connection:

        def ask(statement: str) -> Any:
            result = connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None

        found, owner = ask("PRAGMA user_version"), ask("PRAGMA application_id")
        empty = not ask("SELECT count(*) FROM sqlite_master")
        if (owner, empty) == (0, True):
            Base.metadata.create_all(connection)
            ask(f"PRAGMA application_id = {APPLICATION_ID}")
            found = SCHEMA_VERSION
        elif owner != APPLICATION_ID:
            raise explain_foreign(path, "is another program's database, not one")
        if found > SCHEMA_VERSION:
            raise UserError(
                f"the conversations in {path} were written by a newer small-doge (version {found} of the file, this one "
                f"reads up to {SCHEMA_VERSION}); update small-doge, or name another file with --chats FILE"
            )
        problem = ask("PRAGMA quick_check(1)")
        if problem != "ok":
            damage = sqlite3.DatabaseError(" ".join(problem.split()))
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise explain(path, damage)
        for version in range(found, SCHEMA_VERSION):
            for statement in MIGRATIONS[version]:
                ask(statement)
        ask(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return prepare_search(ask)


def prepare_search(ask: Any) -> bool:
    """Make the index for search where this SQLite can; where it can't, stop what keeps it, as it would fail."""
    names = ask("SELECT group_concat(name, ' ') FROM sqlite_master").split()
    if not can_index():
        for name in TRIGGERS:
            ask(f"DROP TRIGGER IF EXISTS {name}")
        return False
    if "message_search" not in names:
        ask(SEARCH)
    missing = [name for name in TRIGGERS if name not in names]
    for name in missing:
        ask(f"CREATE TRIGGER {name} {TRIGGERS[name]}")
    if missing:  # a new index, or one that a process without FTS5 left behind
        ask("INSERT INTO message_search (message_search) VALUES ('rebuild')")
    return True


def can_index() -> bool:
    """Tell whether this SQLite finds parts of words, of any language: FTS5 with trigrams."""
    with sqlite3.connect(":memory:") as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5(text, tokenize='trigram case_sensitive 1')")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.rollback()
    return True


def use_write_ahead_log(engine: Engine) -> None:
    """Let readers and a writer work at once; file systems that can't do that keep the plain journal.

    Changing the mode does not wait for other connections by itself.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    connection = engine.raw_connection()
    try:
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    finally:
        connection.close()
