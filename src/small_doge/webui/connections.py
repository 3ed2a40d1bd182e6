"""Connections that ask for nothing: how many may be open, and for how long."""

import asyncio
import socket
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


HEAD_SECONDS = 30.0  # the head of a request must have arrived after this time
HEAD_BYTES = 2**20
DEAD_SECONDS = 60  # what is sent must be taken after this time


class Connections:
    """Watches the connections of a server around its application.

    A connection without a request is closed after a while, when it sends too much, or when others need its place.

    Args:
        app: the application.
        limit: connections that may be open at the same time, as far as some of them have no request.

    Attributes:
        open: the open connections by the addresses of both ends, the oldest first: a client may use one port of its own
            for several of the server's.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.open: dict[tuple[Any, ...], _Connection] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; meanwhile the connection is in use."""
        connection = self.open.get((*(scope.get("client") or ()), *(scope.get("server") or ())))
        if connection is None:
            await self.app(scope, receive, send)
            return
        connection.begin()
        try:
            await self.app(scope, receive, send)
        finally:
            connection.end()

    def watch(self, protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
        """Return a class of uvicorn's connections, made of another one, that are watched."""
        connections = self

        class Watched(protocol):  # type: ignore[valid-type]
            def connection_made(self, transport: asyncio.Transport) -> None:
                self.watched = connections.add(transport)
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                self.watched.count(len(data))
                super().data_received(data)

            def connection_lost(self, error: Exception | None) -> None:
                connections.remove(self.watched)
                super().connection_lost(error)

        return Watched

    def add(self, transport: asyncio.Transport) -> "_Connection":
        """Take note of a new connection; the oldest one without a request makes room for it."""
        if len(self.open) >= self.limit:
            idle = next((connection for connection in self.open.values() if connection.timer is not None), None)
            if idle is not None:
                self.remove(idle)
                idle.transport.abort()
        connection = _Connection(transport)
        self.open[connection.ends] = connection
        connection.wait()
        return connection

    def remove(self, connection: "_Connection") -> None:
        """Forget a connection."""
        connection.stop_waiting()
        if self.open.get(connection.ends) is connection:
            del self.open[connection.ends]


class _Connection:
    """An open connection.

    Attributes:
        timer: closes it; None while it has a request.
        num_requests: requests that are being answered. The next may begin just before the last has ended.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        names = (transport.get_extra_info(name) or () for name in ("peername", "sockname"))
        self.ends: tuple[Any, ...] = tuple(part for name in names for part in name[:2])
        self.timer: asyncio.TimerHandle | None = None
        self.num_bytes = 0
        self.num_requests = 0

    def begin(self) -> None:
        """Take note that a request has come."""
        self.num_requests += 1
        self.stop_waiting()

    def end(self) -> None:
        """Take note that a request is answered."""
        self.num_requests -= 1
        if not self.num_requests:
            self.wait()

    def wait(self) -> None:
        """Let the connection wait for its next request, but not for ever."""
        self.num_bytes = 0
        self.stop_waiting()
        if not self.transport.is_closing():
            self.timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.transport.abort)

    def stop_waiting(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def count(self, num_bytes: int) -> None:
        """Count what comes before a request is complete: a head without end is not read to its end."""
        self.num_bytes += num_bytes
        if self.timer is not None and self.num_bytes > HEAD_BYTES:
            self.transport.abort()


def set_patience(listener: socket.socket) -> None:
    """Let the system close connections whose clients are gone without a word, or never read what they are sent."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", DEAD_SECONDS), ("TCP_USER_TIMEOUT", DEAD_SECONDS * 1000)):
        if hasattr(socket, name):  # of Linux
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def allow_open_files(count: int) -> None:
    """Let the process have as many connections open as it is meant to, where the system permits it."""
    try:
        import resource
    except ImportError:  # of Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
