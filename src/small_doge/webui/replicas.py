"""The server as replicas of Ray Serve: several processes, on one machine or more, behind one address."""

import asyncio
import os
import secrets
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import psutil
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from ..utils.errors import UserError
from ..utils.extras import needs_extra
from ..utils.reports import stop_reports
from .app import GRACE, create_app
from .errors import ApiError
from .registry import GIB, ModelRegistry
from .serving import announce, listen
from .settings import ServeSettings


NAME = "small-doge"
ANSWER_SECONDS = 10.0  # in which a replica does its part, unless it loads a model
OBJECT_STORE = 128 * 2**20  # bytes; requests and answers do not pass through it
QUIET = {"log_level": "ERROR", "enable_access_log": False}


def run_replicas(settings: ServeSettings, tell: Callable[[str], None]) -> None:
    """Serve by replicas until the process is told to stop.

    Each replica is the whole application; they share the file of conversations. A replica that dies is started again.

    Args:
        settings: what to serve, to whom, within which limits; `RAY_ADDRESS` names a cluster that runs already.
        tell: is told what happens, and where to find the server.

    Raises:
        UserError: Ray is not installed, the port is taken, or the first model can't be loaded.
    """
    stop_reports()
    if not os.environ.get("RAY_ADDRESS"):
        # Ray's own ports are open to the network, and run code: for this process alone.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with needs_extra("--engine ray", "scale"):
        import ray
        from ray import serve
    shared = _share_out(settings)
    registry = ModelRegistry(settings, tell)
    if not settings.page_only:
        asyncio.run(_load_once(registry))
    tell(f"Starting {settings.replicas} replicas")
    try:
        _start_ray(ray, settings)
        http = {"host": shared.host, "port": shared.port}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=QUIET)
        serve.run(_deploy(serve, shared), name=NAME, route_prefix="/", logging_config=QUIET)
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has set its own before
            signal.signal(number, signal.default_int_handler)
        announce(settings, [shared.port], registry, tell)
        threading.Event().wait()
    except RuntimeError as error:
        raise UserError(f"the replicas did not start: {error}") from error
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()


def _share_out(settings: ServeSettings) -> ServeSettings:
    """Return the settings of one replica: its part of memory and threads, and the port that is taken for all.

    Raises:
        UserError: the port is not free.
    """
    listener = listen(settings.host, settings.port)  # says what is wrong, which Ray does not
    port = listener.getsockname()[1]
    listener.close()
    budget = settings.memory_budget or psutil.virtual_memory().available / 2 / GIB
    threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.replicas)
    return replace(settings, port=port, memory_budget=budget / settings.replicas, threads=threads)


async def _load_once(registry: ModelRegistry) -> None:
    """Load the first model here, so that a checkpoint is exported once, and what is wrong is said at once.

    Raises:
        UserError: it can't be loaded.
    """
    with await registry.acquire(None):
        pass
    await registry.close(0.0)


def _start_ray(ray: Any, settings: ServeSettings) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start one of this machine.

    Raises:
        UserError: it does not start, or can't be reached.
    """
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": settings.debug}
    if not os.environ.get("RAY_ADDRESS"):
        options.update(num_cpus=1, include_dashboard=False, object_store_memory=OBJECT_STORE)
    try:
        ray.init(**options)
    except Exception as error:  # Ray has no narrower one for processes that do not start in time
        reason = str(error).strip().split("\n")[0]  # what follows are logs
        raise UserError(
            f"Ray did not start: {reason} Try again when the machine is less busy; RAY_ADDRESS names a cluster that runs already"
        ) from error


def _deploy(serve: Any, settings: ServeSettings) -> Any:
    """Describe the replicas to Ray Serve."""
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": max(0.01, round(1 / settings.replicas - 0.005, 2))},
        max_ongoing_requests=settings.max_connections,
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=GRACE,
        logging_config=QUIET,
    )
    return deployment.bind(settings)


class Replica:
    """One replica, within a process of Ray Serve, which calls the methods.

    Args:
        settings: of this replica.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application that answers the requests of clients."""
        from ray import serve

        app = create_app(self.settings, load_first=True, broadcast=ask_replicas)
        self.control = app.state.server.control.local
        self.control.name = serve.get_replica_context().replica_tag
        return app

    async def perform(self, action: str, *arguments: Any) -> Any:
        """Do the part of this replica in what another one was asked for."""
        return await self.control.perform(action, *arguments)


async def ask_replicas(action: str, *arguments: Any) -> list[Any]:
    """Let all replicas do their part, and return what they answer; one that dies meanwhile answers nothing.

    Raises:
        ApiError: none of them answered in time.
    """
    from ray.exceptions import RayActorError

    handle = await run_in_threadpool(_find_replicas)
    patience = None if action == "load" else ANSWER_SECONDS
    try:
        answers = await handle.broadcast("perform", action, *arguments).results_async(
            timeout_s=patience, return_exceptions=True
        )
    except TimeoutError:
        answers = []
    answers = [answer for answer in answers if not isinstance(answer, RayActorError)]
    if not answers:
        raise ApiError(503, "the replicas did not answer in time; try again later", headers={"Retry-After": "5"})
    failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if failure is not None and not isinstance(failure, ApiError):
        raise failure
    return answers


@cache
def _find_replicas() -> Any:
    """Find what calls the replicas, from within one of them."""
    from ray import serve

    return serve.get_app_handle(NAME)
