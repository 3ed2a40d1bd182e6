"""Running the server: listening, loading the first model, and ending in order."""

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from ..utils.errors import UserError
from .app import GRACE, create_app
from .connections import Connections, allow_open_files, set_patience
from .errors import ApiError
from .registry import ModelRegistry
from .settings import LOOPBACK, ServeSettings, make_address


BACKLOG = 2048


def run_server(settings: ServeSettings, tell: Callable[[str], None], extra_ports: Sequence[int] = ()) -> None:
    """Serve until the process is told to stop, by SIGINT or SIGTERM.

    Args:
        settings: what to serve, to whom, within which limits.
        tell: is told what happens with models, and where to find the server.
        extra_ports: further ports to listen on.

    Raises:
        UserError: a port is taken, or the first model can't be loaded.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    allow_open_files(settings.max_connections + 256)
    sockets: list[socket.socket] = []
    try:
        if settings.engine == "ray":
            if extra_ports:
                raise UserError("--engine ray listens on one port; leave --frontend-port out")
            from .replicas import run_replicas

            run_replicas(settings, tell)
            return
        sockets.append(listen(settings.host, settings.port, "--frontend-port" if settings.page_only else "--port"))
        further = [port for port in extra_ports if port != settings.port or not port]
        sockets.extend(listen(settings.host, port, "--frontend-port") for port in further)
        app = create_app(settings, tell)
        asyncio.run(_serve(app, settings, sockets, tell))
    except KeyboardInterrupt:  # uvicorn raises the signal again when it has ended in order
        tell("Stopped.")
    except ApiError as error:
        raise UserError(error.message) from error
    finally:
        for listener in sockets:
            listener.close()


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Open a listening socket.

    Args:
        host: address of this machine.
        port: port; 0 takes a free one.
        option: what gave the port, for messages.

    Raises:
        UserError: the port is taken or may not be used, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        set_patience(listener)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        remedies = {
            errno.EADDRINUSE: f"stop what listens there, or choose another port with {option}",
            errno.EACCES: f"choose a port above 1023 with {option}",
        }
        remedy = remedies.get(error.errno or 0, "give an address of this machine with --host")
        raise UserError(f"can't listen on {host} port {port} ({error.strerror}); {remedy}") from error
    return listener


class _Server(uvicorn.Server):
    """A server that says when it is ready, and lets running requests finish for a while when it is told to stop."""

    def __init__(self, config: uvicorn.Config, registry: ModelRegistry, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.registry = registry
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop. What is not finished in time, or when a second SIGINT comes, ends with an error that says so."""
        closing = asyncio.create_task(self.registry.close(GRACE))
        hurrying = asyncio.create_task(self._hurry())
        await super().shutdown(sockets)
        await closing
        hurrying.cancel()
        if self.force_exit:  # then uvicorn leaves the application running, and reports its end as an error
            await self.lifespan.shutdown()

    async def _hurry(self) -> None:
        """Wait for a second SIGINT, and leave running requests no more time."""
        while not self.force_exit:
            await asyncio.sleep(0.05)
        self.registry.hurry()


async def _serve(
    app: FastAPI, settings: ServeSettings, sockets: list[socket.socket], tell: Callable[[str], None]
) -> None:
    """Load the first model, and serve."""
    registry = app.state.server.registry
    if not settings.page_only:
        with await registry.acquire(None):
            pass
    config = make_config(app, settings)
    ports = [listener.getsockname()[1] for listener in sockets]
    await _Server(config, registry, lambda: announce(settings, ports, registry, tell)).serve(sockets)


def _is_loopback(address: str | None) -> bool:
    """Tell whether an address is that of the machine which asks."""
    return urlsplit(address or "").hostname in LOOPBACK


def make_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, whose connections are watched."""
    connections = Connections(app, settings.max_connections)
    config = uvicorn.Config(
        connections,
        log_level=logging.DEBUG if settings.debug else logging.WARNING,
        access_log=settings.debug,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=settings.max_connections + 1,  # of which the last is told that there are too many
        timeout_graceful_shutdown=int(GRACE) + 5,
        backlog=BACKLOG,
    )
    config.load()
    config.http_protocol_class = connections.watch(config.http_protocol_class)
    return config


def announce(
    settings: ServeSettings, ports: Sequence[int], registry: ModelRegistry, tell: Callable[[str], None]
) -> None:
    """Say what to open, and how to ask from a shell.

    Args:
        settings: what is served.
        ports: those that the server listens on: the API's first, and the page's last, if it has one of its own.
        registry: the models.
        tell: is told.
    """
    base, page = (make_address(settings.host, port) for port in (ports[0], ports[-1]))
    if not settings.no_page:
        tell(f"Open {page} in a browser to chat." + (" It will ask for the API key." if settings.api_key else ""))
    if settings.page_only:
        tell(f"It asks {settings.backend}, which must be started with: --cors-origins {page}")
        if not settings.is_local and _is_loopback(settings.backend):
            tell(
                f"On other machines {settings.backend} is their own: name an address that they can reach with --backend, "
                "and start the server there with --host and --cors-origins."
            )
        return
    if page != base and not settings.no_page:
        tell(f"Programs use the API at {base}. Either port has both, the page and the API.")
    entry = registry.find(None)
    key = ' -H "Authorization: Bearer $SMALLDOGE_API_KEY"' if settings.api_key else ""
    content, path = ('"messages": [{"role": "user", "content": "Hello"}]', "chat/completions")
    if not entry.describe()["can_chat"]:
        content, path = ('"prompt": "Once upon a time"', "completions")
    address = f"'{base}/v1/{path}'" if "[" in base else f"{base}/v1/{path}"  # brackets mean something to some shells
    tell(f"Or ask from a shell:\n  curl {address}{key} -H 'Content-Type: application/json' -d '{{{content}}}'")
    tell(f"Models: {', '.join(registry.entries)}. API: {base}/docs. Ctrl-C stops the server.")
