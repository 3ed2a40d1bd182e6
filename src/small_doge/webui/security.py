"""What stands between the network and the application: who may ask, how much, and for how long.

One ASGI middleware reads each request whole, within limits of size and time, before the application runs, and ends the
application's work when the client leaves. So no route has to care for slow senders, huge bodies or clients that are gone.
"""

import asyncio
import hmac
import socket
from collections.abc import Callable, MutableMapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..utils.logging import get_logger
from .errors import ApiError, respond_with_error, to_api_error
from .metrics import Metrics
from .settings import LOOPBACK, ServeSettings


logger = get_logger(__name__)

BODY_SECONDS = 30.0  # a body must have arrived after this time
# Paths that need no key: the page, which asks for it, and what tells that the server is alive.
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/health", "/config.json", "/favicon.ico")
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: "
    "blob:; connect-src 'self'{backend}; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'"
)


class SecurityMiddleware:
    """Checks who asks and how much before the application runs, and ends its work when the client leaves.

    Args:
        app: the application.
        settings: keys, hosts, origins and limits.
        metrics: where responses are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.key = None if settings.api_key is None else settings.api_key.encode()
        self.limit = int(settings.max_body_mib * 2**20)
        self.names = {name.lower() for name in (*LOOPBACK, settings.host, *settings.allowed_hosts)}
        if not settings.is_local:
            self.names.add(socket.gethostname().lower())
        backend = " " + "/".join(settings.backend.split("/")[:3]) if settings.backend else ""  # without its path
        self.security_headers = {
            "Content-Security-Policy": POLICY.format(backend=backend),
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "cross-origin" if settings.cors_origins else "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if settings.page_only:  # it computes nothing, and tells a server that is down from one that refuses it
            del self.security_headers["Cross-Origin-Embedder-Policy"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, run the application on it, and answer what went wrong."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered as GET is; the server leaves the body out
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                self._add_headers(MutableHeaders(scope=message), origin, scope["path"])
                self.metrics.responses.labels(_name_route(scope), str(message["status"])).inc()
            await send(message)

        try:
            self._check(scope, headers)
            if self._is_preflight(scope, headers):
                await _answer_preflight(headers)(scope, receive, send_with_headers)
                return
            body = await asyncio.wait_for(_read_body(receive, headers, self.limit), BODY_SECONDS)
        except TimeoutError:
            error = ApiError(408, f"the request's body did not arrive within {BODY_SECONDS:g} s", code="timeout")
            await _refuse(error, scope, receive, send_with_headers)
        except ApiError as error:
            await _refuse(error, scope, receive, send_with_headers)
        except ConnectionError:  # the client left before it had sent its request
            return
        else:
            await self._run(scope, body, receive, send_with_headers, lambda: has_started)

    async def _run(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, has_started: Callable[[], bool]
    ) -> None:
        """Run the application; cancel it when the client leaves."""
        app = asyncio.ensure_future(self.app(scope, _Replay(body), send))
        gone = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait((app, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not app.done():
                app.cancel()
        try:
            await app
        except asyncio.CancelledError:
            if not gone.done():
                raise
        except OSError:  # the client left while it was sent something
            pass
        except Exception as error:  # noqa: BLE001 (the server's edge)
            described = to_api_error(error)
            if not has_started():
                await _refuse(described, scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse names that the server does not have, pages of other origins, and wrong keys.

        Raises:
            ApiError: the reason.
        """
        host = headers.get("host", "")
        if not self._knows_host(host):
            raise ApiError(
                421,
                f"this server is not called {host[:200]!r}; start it with --allowed-hosts to let browsers use that name",
                code="unknown_host",
            )
        origin = headers.get("origin")
        if origin is not None and not self._allows_origin(origin, host):
            raise ApiError(
                403,
                f"pages of {origin[:200]!r} may not use this server; start it with --cors-origins to allow them",
                code="origin_not_allowed",
            )
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/") or scope["method"] == "OPTIONS"
        if self.key is not None and not is_open and not self._has_key(headers):
            raise ApiError(
                401,
                "the API key is wrong: send the one that the server was started with"
                if headers.get("authorization") or headers.get("x-api-key")
                else "this server needs its API key: send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _knows_host(self, host: str) -> bool:
        """Tell whether a Host header names this server. A page that rebinds its own name to this address does not know."""
        name = _read_host(f"//{host}", "hostname")
        if name is None:
            return False
        if name in self.names or "*" in self.names:
            return True
        return not self.settings.is_local and _is_address(name)

    def _allows_origin(self, origin: str, host: str) -> bool:
        """Tell whether a page may call the server: ours, or one that is allowed."""
        allowed = self.settings.cors_origins
        return "*" in allowed or origin in allowed or _read_host(origin, "netloc") == host

    def _has_key(self, headers: Headers) -> bool:
        """Compare the key in constant time."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        keys = [given.strip()] if kind.lower() == "bearer" else []
        keys.append(headers.get("x-api-key", ""))
        return any([hmac.compare_digest(key.encode("utf-8", "replace"), self.key or b"") for key in keys])  # noqa: C419 (all are compared)

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        return scope["method"] == "OPTIONS" and "access-control-request-method" in headers

    def _add_headers(self, headers: MutableHeaders, origin: str | None, path: str) -> None:
        if path == "/health":  # a page may see that the server is there, and nothing of the answer
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        for name, value in self.security_headers.items():
            if name not in headers:
                headers[name] = value
        if origin is not None and self.settings.cors_origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = "Retry-After, X-Small-Doge-Ignored"
            headers.add_vary_header("Origin")


class _Replay:
    """Gives the application a body that was read already; after it, nothing more."""

    def __init__(self, body: bytes) -> None:
        self.body: bytes | None = body

    async def __call__(self) -> Message:
        """Return the body, and then wait: the end of the connection is watched elsewhere."""
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def _read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Read a body whole.

    Raises:
        ApiError: it is larger than the limit.
        ConnectionError: the client left.
    """
    too_large = ApiError(
        413, f"the request is larger than {limit / 2**20:g} MiB (--max-body-mib)", code="request_too_large"
    )
    announced = headers.get("content-length", "0")
    if len(announced) > 18 or (announced.isdecimal() and int(announced) > limit):
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = respond_with_error(error, scope["path"])
    if error.status in (408, 413):  # the rest of the body is not read
        response.headers["Connection"] = "close"
    await response(scope, receive, send)


def _answer_preflight(headers: Headers) -> Response:
    """Answer a browser that asks whether a page may call the server."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
            "Access-Control-Max-Age": "600",
        },
    )


def _name_route(scope: MutableMapping) -> str:
    """Name the route of a request for the metrics; unknown paths share one name, so that nobody can add names."""
    return getattr(scope.get("route"), "path", None) or "other"


def _read_host(address: str, part: str) -> str | None:
    """Return a part of an address, without user or password; None if it holds what names are not written with."""
    if not address.isascii() or not all(letter.isalnum() or letter in ".-_:[]/%" for letter in address):
        return None
    try:
        return getattr(urlsplit(address), part) or None
    except ValueError:  # brackets that do not match
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
