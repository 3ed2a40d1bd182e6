"""The models of a server: found by name, loaded on demand, and unloaded when memory runs short."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from starlette.concurrency import run_in_threadpool

from ..inference import Engine
from ..inference.export_cache import open_fast_engine
from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.paths import find_near_names, looks_like_path
from ..utils.suggest import unknown_name_message
from .errors import ApiError
from .model_entry import ModelEntry
from .model_files import estimate_bytes, find_models
from .settings import ServeSettings
from .worker import EngineWorker


logger = get_logger(__name__)

GIB = 2**30

T = TypeVar("T")


class ModelRegistry:
    """The models of a server.

    Args:
        settings: which models, and how much memory.
        tell: is told what is loaded, exported and unloaded.

    Raises:
        UserError: a named model does not exist, or there is none at all.
    """

    def __init__(self, settings: ServeSettings, tell: Callable[[str], None] = logger.info) -> None:
        self.settings = settings
        self.tell = tell
        self.entries: dict[str, ModelEntry] = {}  # replaced, never changed: several threads read it
        self._entries_lock = threading.Lock()
        self._loading = asyncio.Lock()  # one at a time, so that the budget is kept
        self._is_closing = False
        free = psutil.virtual_memory().available
        self.budget = int(settings.memory_budget * GIB) if settings.memory_budget else free // 2
        for source in settings.models:
            self._add(source)
        if settings.models_dir is not None and not Path(settings.models_dir).is_dir():
            raise UserError(f"models_dir={settings.models_dir} is not a folder; make it, or name another")
        self.rescan()

    def rescan(self) -> None:
        """Offer what was written to the models' folder since the last look."""
        if self.settings.models_dir is None:
            return
        folder = Path(self.settings.models_dir)
        with self._entries_lock:
            known = {Path(entry.source).resolve() for entry in self.entries.values()}
            for found in find_models(folder):
                if found.resolve() not in known:
                    name = str(found.relative_to(folder))
                    self._add(str(found), f"{folder.resolve().name}/{name}" if name in self.entries else name)
            self.entries = {name: entry for name, entry in self.entries.items() if not self._is_gone(entry)}

    def _is_gone(self, entry: ModelEntry) -> bool:
        """Tell whether a model of the folder was removed from it, and nothing needs its name any more."""
        is_named = any(source.endswith(entry.source) for source in self.settings.models)
        return not (is_named or entry.is_loaded or entry.num_users or Path(entry.source).exists())

    def _add(self, source: str, name: str | None = None) -> ModelEntry:
        """Offer a model under a name of its own: the last part of its path, or as many as tell it apart."""
        given, separator, rest = source.partition("=")
        if name is None and separator and not Path(source).exists():
            name, source = given, rest
            if not (name and source):
                raise UserError(f"model {given}={rest} must be a name and a folder: NAME=FOLDER")
        path = Path(source)
        if looks_like_path(source) and not path.is_dir():
            raise UserError(f"model {source} is not a folder{find_near_names(path)}")
        parts = [part for part in Path(source).parts if part not in ("/", ".", "..")] or [source]
        candidates = [name] if name else ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        free = next((candidate for candidate in candidates if candidate not in self.entries), None)
        if free is None:
            raise UserError(f"two models are called {candidates[-1]}; give one another name: NAME={source}")
        entry = ModelEntry(free, source)
        self.entries = {**self.entries, free: entry}
        return entry

    def find(self, name: str | None) -> ModelEntry:
        """Find a model by its name, or by the path that the server was started with; the first for None.

        Raises:
            ApiError: there is none.
        """
        entry = self._look_up(name)
        if entry is None:
            self.rescan()  # it may have been written since
            entry = self._look_up(name)
        if entry is not None:
            return entry
        if name is None:
            where = f"; {self.settings.models_dir} holds no exported model and no Doge checkpoint"
            raise ApiError(404, f"the server has no model{where}", param="model", code="model_not_found")
        known = list(self.entries)
        raise ApiError(404, unknown_name_message("model", str(name), known), param="model", code="model_not_found")

    def _look_up(self, name: str | None) -> ModelEntry | None:
        entries = self.entries.values()
        if name is None:
            return next(iter(entries), None)
        for candidate in (name, name.removesuffix(":latest")):
            found = next((entry for entry in entries if candidate in (entry.name, entry.source)), None)
            if found is not None:
                return found
        return None

    async def acquire(self, name: str | None) -> ModelEntry:
        """Return a loaded model that stays loaded until its `release` is called, or the block ends that it is used as.

        Raises:
            ApiError: there is no such model, no memory for it, or the server is shutting down.
            UserError: it can't be loaded.
        """
        entry = self.find(name)
        entry.num_users += 1
        try:
            if not entry.is_loaded:
                await self._wait_until_loaded(entry)
        except BaseException:
            entry.num_users -= 1
            raise
        entry.last_used = time.monotonic()
        return entry

    async def _wait_until_loaded(self, entry: ModelEntry) -> None:
        """Load a model, unless it is being loaded already, and wait for it."""
        shutting_down = ApiError(503, "the server is shutting down", code="shutting_down")
        if self._is_closing:
            raise shutting_down
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry))
            # Whoever waited for it may be gone when it fails.
            entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        loading = entry.loading
        try:
            await asyncio.shield(loading)  # a client that leaves does not end what others may wait for
        except asyncio.CancelledError:
            if loading.cancelled():
                raise shutting_down from None
            raise

    async def _load(self, entry: ModelEntry) -> None:
        entry.status, entry.error = "loading", None
        entry.note_change()
        try:
            async with self._loading:
                await self._make_room(entry)
                start = time.perf_counter()
                engine = await _run_in_daemon(lambda: self._open(entry))
                if not entry.created:  # it was downloaded just now
                    entry.note_change()
                entry.attach(EngineWorker(engine, self.settings.max_queue, self.settings.request_timeout))
                await self._keep_budget()
            self.tell(f"Loaded {entry.name} in {time.perf_counter() - start:.1f} s")
        except BaseException as error:
            entry.status, entry.error = "failed", str(error) or type(error).__name__
            raise
        finally:
            entry.loading = None

    def _open(self, entry: ModelEntry) -> Engine:
        engine = open_fast_engine(
            entry.source, self.settings.num_slots, self.settings.threads, self.settings.quantize, self.tell
        )
        engine.name = engine.scheduler.name = entry.name  # clients are told this name, and no path of the server
        return engine

    async def _make_room(self, entry: ModelEntry) -> None:
        """Unload models, the one used least recently first, until another fits.

        Raises:
            ApiError: it does not fit.
        """
        needed = estimate_bytes(entry.folder)
        if not entry.folder.is_dir():
            self.tell(
                f"{entry.name} is not on this machine yet, so that its size is unknown: the memory budget counts "
                f"{needed / 2**20:.0f} MiB until it is loaded"
            )
        if needed > self.budget:
            raise ApiError(
                503,
                f"{entry.name} needs about {needed / GIB:.2f} GiB; the server has {self.budget / GIB:.2f} GiB for models "
                "(--memory-budget)",
                code="insufficient_memory",
            )
        if not await self._free_idle(needed):
            raise ApiError(
                503,
                f"there is no memory for {entry.name} while other models answer; try again later",
                code="insufficient_memory",
                headers={"Retry-After": "5"},
            )

    async def _keep_budget(self) -> None:
        """Unload models that no request uses if one that was loaded just now is larger than estimated."""
        if not await self._free_idle(0):
            self.tell(
                f"The loaded models take {self._count_loaded() / GIB:.2f} GiB, more than the {self.budget / GIB:.2f} GiB of "
                "the memory budget (--memory-budget)"
            )

    async def _free_idle(self, needed: int) -> bool:
        """Unload models that no request uses, the one used least recently first; tell whether there is room in the end."""
        while self._count_loaded() + needed > self.budget:
            idle = [entry for entry in self._list_loaded() if not entry.num_users]
            if not idle:
                return False
            await self._free(min(idle, key=lambda entry: entry.last_used))
        return True

    def _count_loaded(self) -> int:
        """Count the bytes of all loaded models."""
        return sum(entry.count_bytes() for entry in self._list_loaded())

    def _list_loaded(self) -> list[ModelEntry]:
        return [entry for entry in self.entries.values() if entry.is_loaded]

    @property
    def is_loading(self) -> bool:
        """Tell whether a model is being loaded, for which an unload would wait."""
        return any(entry.loading is not None for entry in self.entries.values())

    async def unload(self, entry: ModelEntry) -> None:
        """Free the memory of a model.

        Raises:
            ApiError: requests use it now, or it is being loaded.
        """
        self._check_unused(entry)
        if entry.is_loaded:
            async with self._loading:
                self._check_unused(entry)  # a request may have come since
                await self._free(entry)

    def _check_unused(self, entry: ModelEntry) -> None:
        """Refuse to unload a model that requests use, or wait for."""
        if entry.num_users:
            raise ApiError(409, f"{entry.name} answers {entry.num_users} requests now; try again later", code="in_use")
        if entry.loading is not None:
            raise ApiError(409, f"{entry.name} is being loaded; try again later", code="in_use")

    async def _free(self, entry: ModelEntry) -> None:
        """Free the memory of a loaded model, while no other is loaded: the budget counts it until it is gone."""
        if not entry.is_loaded or entry.num_users:
            return
        worker = entry.worker
        entry.attach(None)
        await run_in_threadpool(_close, worker, 0.0)
        self.tell(f"Unloaded {entry.name}")

    def hurry(self) -> None:
        """End running requests now, while `close` waits for them."""
        for entry in self._list_loaded():
            entry.worker.shorten(0.0)

    async def close(self, grace: float) -> None:
        """Let running requests finish for up to `grace` seconds, and free all models. What is being loaded is given up."""
        self._is_closing = True
        loading = [entry.loading for entry in self.entries.values() if entry.loading is not None]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        workers = [entry.worker for entry in self._list_loaded()]
        await asyncio.gather(*(run_in_threadpool(_close, worker, grace) for worker in workers))
        for entry in self._list_loaded():
            entry.attach(None)


async def _run_in_daemon(function: Callable[[], T]) -> T:
    """Run a function in a thread that does not outlive the process: an export may take minutes, and nobody waits for it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(settle_future: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            settle_future(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = (future.set_result, function())
        except BaseException as error:  # noqa: BLE001 (it is raised where the function is waited for)
            outcome = (future.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await future


def _close(worker: EngineWorker, grace: float) -> None:
    worker.close(grace)
    worker.engine.close()
