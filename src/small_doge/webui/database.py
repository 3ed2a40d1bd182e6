"""The connection to the file of conversations: transactions that are confirmed whole, and writers that wait their turn."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from .chat_tables import explain, open_database


class Database:
    """An open file.

    Args:
        path: of the file, which is made if it is not there.

    Attributes:
        path: of the file.
        indexed: whether it has an index for search.

    Raises:
        UserError: the file is another program's, damaged, newer than this version, or can't be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._engine, self.indexed = open_database(self.path)
        # SQLite lets one write at a time; threads wait here, in turn, and not by trying again and again.
        self._writing = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def session(self, writes: bool = False) -> Iterator[Session]:
        """Run one transaction; what it wrote is confirmed at the end, or nothing of it."""
        engine = self._engine.execution_options(writes=writes)
        try:
            with Session(engine) as session, session.begin():
                yield session
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.IntegrityError) or not isinstance(error.orig, sqlite3.Error):
                raise
            raise explain(self.path, error.orig) from error

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Run one transaction that writes, after those that other threads have begun."""
        with self._writing, self.session(writes=True) as session:
            yield session
