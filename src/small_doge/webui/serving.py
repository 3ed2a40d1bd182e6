"""Running the server: listening, loading the first model, and ending in order."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI

from ..utils.errors import UserError
from .app import GRACE, create_app
from .settings import ServeSettings


BACKLOG = 2048


def run_server(settings: ServeSettings, tell: Callable[[str], None], extra_ports: Sequence[int] = ()) -> None:
    """Serve until the process is told to stop.

    Args:
        settings: what to serve, to whom, within which limits.
        tell: is told what happens with models, and where to find the server.
        extra_ports: further ports to listen on.

    Raises:
        UserError: a port is taken, or the first model can't be loaded.
    """
    sockets = [listen(settings.host, port) for port in dict.fromkeys((settings.port, *extra_ports))]
    try:
        app = create_app(settings, tell)
        asyncio.run(_serve(app, settings, sockets, tell))
    finally:
        for listener in sockets:
            listener.close()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(
            f"can't listen on {host} port {port} ({error.strerror}); stop what listens there, or choose another with --port"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.announce()


async def _serve(
    app: FastAPI, settings: ServeSettings, sockets: list[socket.socket], tell: Callable[[str], None]
) -> None:
    """Load the first model, and serve."""
    registry = app.state.server.registry
    if not settings.page_only:
        with await registry.acquire(None):
            pass
    config = uvicorn.Config(
        app,
        log_level=logging.DEBUG if settings.debug else logging.WARNING,
        access_log=settings.debug,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=int(GRACE) + 5,
        backlog=BACKLOG,
    )
    await _Server(config, lambda: _announce(settings, sockets, registry, tell)).serve(sockets)


def _announce(settings: ServeSettings, sockets: list[socket.socket], registry, tell: Callable[[str], None]) -> None:  # noqa: ANN001
    """Say what to open, and how to ask from a shell."""
    port = sockets[0].getsockname()[1]
    name = "127.0.0.1" if settings.is_local or settings.host in ("0.0.0.0", "::") else settings.host
    base = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    if not settings.no_page:
        tell(f"Open {base} in a browser to chat." + (" It will ask for the API key." if settings.api_key else ""))
    if settings.page_only:
        return
    entry = registry.find(None)
    key = " -H 'Authorization: Bearer KEY'" if settings.api_key else ""
    content, path = ('"messages": [{"role": "user", "content": "Hello"}]', "chat/completions")
    if not entry.describe()["can_chat"]:
        content, path = ('"prompt": "Once upon a time"', "completions")
    tell(f"Or ask from a shell:\n  curl {base}/v1/{path}{key} -H 'Content-Type: application/json' -d '{{{content}}}'")
    tell(f"Models: {', '.join(registry.entries)}. API: {base}/docs. Ctrl-C stops the server.")
