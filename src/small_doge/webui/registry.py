"""The models of a server: found by name, loaded on demand, and unloaded when memory runs short."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from starlette.concurrency import run_in_threadpool

from ..inference import Engine, is_exported
from ..inference.export_cache import open_fast_engine
from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.paths import find_near_names, looks_like_path
from ..utils.suggest import unknown_name_message
from .errors import ApiError
from .model_files import count_weights, describe_files, find_newest, read_json
from .settings import ServeSettings
from .worker import EngineWorker


logger = get_logger(__name__)

GIB = 2**30


class ModelEntry:
    """A model that the server offers.

    Attributes:
        name: what clients call it.
        source: folder or hub name.
        status: "unloaded", "loading", "loaded" or "failed".
        error: why it could not be loaded.
        num_users: requests that use it now; it is not unloaded while there are any.
        last_used: by `time.monotonic`.
        created: when the files of its weights and settings were last changed, in seconds since 1970; of those that are
            loaded, if it is.
        loading: what loads it now; whoever needs the model waits for it.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.status = "unloaded"
        self.error: str | None = None
        self.num_users = 0
        self.last_used = 0.0
        self.loaded_at: float | None = None
        self.created = 0
        self.loading: asyncio.Task[None] | None = None
        self._worker: EngineWorker | None = None
        self.note_change()

    @property
    def worker(self) -> EngineWorker:
        """Return the worker of a loaded model."""
        if self._worker is None:
            raise ApiError(503, f"the model {self.name} is not loaded", code="model_not_loaded")
        return self._worker

    @property
    def engine(self) -> Engine:
        """Return the engine of a loaded model."""
        return self.worker.engine

    @property
    def is_loaded(self) -> bool:
        """Tell whether the model is in memory."""
        return self._worker is not None

    def note_change(self) -> None:
        """Take note of when the model's folder was last changed."""
        self._newest = find_newest(Path(self.source))
        self.created = self._newest // 10**9

    @property
    def has_changed(self) -> bool:
        """Tell whether the folder no longer holds what is loaded: unload the model, and load it again."""
        return self.is_loaded and find_newest(Path(self.source)) != self._newest

    def attach(self, worker: EngineWorker | None) -> None:
        """Take note of the worker that runs the model, or of its end."""
        self._worker = worker
        self.status = "unloaded" if worker is None else "loaded"
        self.loaded_at = None if worker is None else time.time()

    def __enter__(self) -> "ModelEntry":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def fingerprint(self) -> str:
        """Return a name of the weights and the version, which changes when answers may."""
        return f"small-doge-{version('small-doge')}-{self.created:x}"

    def release(self) -> None:
        """Take note that a request no longer uses the model."""
        self.num_users -= 1
        self.last_used = time.monotonic()

    def count_bytes(self) -> int:
        """Count the bytes of the loaded model, or estimate what it would need."""
        return self.engine.nbytes if self.is_loaded else estimate_bytes(self.source)

    def describe(self) -> dict[str, Any]:
        """Describe the model by its files; what they do not tell is None."""
        facts = {"loaded": self.is_loaded, "changed": self.has_changed, **describe_files(self.source)}
        if self.is_loaded:
            facts["can_chat"] = bool(getattr(self.engine.tokenizer, "chat_template", None))
            facts["max_length"] = self.engine.backend.max_length
        return facts


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
            ApiError: there is no such model, or no memory for it.
            UserError: it can't be loaded.
        """
        entry = self.find(name)
        entry.num_users += 1
        try:
            if not entry.is_loaded:
                if entry.loading is None:
                    entry.loading = asyncio.create_task(self._load(entry))
                    # Whoever waited for it may be gone when it fails.
                    entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.shield(entry.loading)  # a client that leaves does not end what others may wait for
        except BaseException:
            entry.num_users -= 1
            raise
        entry.last_used = time.monotonic()
        return entry

    async def _load(self, entry: ModelEntry) -> None:
        entry.status, entry.error = "loading", None
        entry.note_change()
        try:
            async with self._loading:
                await self._make_room(entry)
                start = time.perf_counter()
                engine = await run_in_threadpool(self._open, entry)
                entry.attach(EngineWorker(engine, self.settings.max_queue, self.settings.request_timeout))
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
        needed = estimate_bytes(entry.source)
        if needed > self.budget:
            raise ApiError(
                503,
                f"{entry.name} needs about {needed / GIB:.2f} GiB; the server has {self.budget / GIB:.2f} GiB for models "
                "(--memory-budget)",
                code="insufficient_memory",
            )
        while sum(other.count_bytes() for other in self._list_loaded()) + needed > self.budget:
            idle = [other for other in self._list_loaded() if not other.num_users]
            if not idle:
                raise ApiError(
                    503,
                    f"there is no memory for {entry.name} while other models answer; try again later",
                    code="insufficient_memory",
                    headers={"Retry-After": "5"},
                )
            await self._free(min(idle, key=lambda other: other.last_used))

    def _list_loaded(self) -> list[ModelEntry]:
        return [entry for entry in self.entries.values() if entry.is_loaded]

    async def unload(self, entry: ModelEntry) -> None:
        """Free the memory of a model.

        Raises:
            ApiError: requests use it now, or it is being loaded.
        """
        if entry.num_users:
            raise ApiError(409, f"{entry.name} answers {entry.num_users} requests now; try again later", code="in_use")
        if entry.loading is not None:
            raise ApiError(409, f"{entry.name} is being loaded; try again later", code="in_use")
        if entry.is_loaded:
            async with self._loading:
                await self._free(entry)

    async def _free(self, entry: ModelEntry) -> None:
        """Free the memory of a loaded model, while no other is loaded: the budget counts it until it is gone."""
        if not entry.is_loaded or entry.num_users:
            return
        worker = entry.worker
        entry.attach(None)
        await run_in_threadpool(_close, worker, 0.0)
        self.tell(f"Unloaded {entry.name}")

    async def close(self, grace: float) -> None:
        """Let running requests finish for up to `grace` seconds, and free all models."""
        loading = [entry.loading for entry in self.entries.values() if entry.loading is not None]
        await asyncio.gather(*loading, return_exceptions=True)
        workers = [entry.worker for entry in self._list_loaded()]
        await asyncio.gather(*(run_in_threadpool(_close, worker, grace) for worker in workers))
        for entry in self._list_loaded():
            entry.attach(None)


def _close(worker: EngineWorker, grace: float) -> None:
    worker.close(grace)
    worker.engine.close()


def find_models(folder: Path) -> Iterable[Path]:
    """List the exported models and checkpoints in a folder and in its folders: no hidden ones, and no links out of it."""
    inside = folder.resolve()
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or path.name.startswith("checkpoint-") or not path.resolve().is_relative_to(inside):
                continue
            if path.is_dir() and is_model(path):
                yield path


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds an exported Doge model or a checkpoint of one."""
    if is_exported(folder):
        return True
    kind = (read_json(folder / "config.json") or {}).get("model_type")
    return kind in ("doge", "doge_moe") and any(folder.glob("*.safetensors"))


def estimate_bytes(source: str) -> int:
    """Estimate the bytes that a model takes when it is loaded: its weights, twice while they are read."""
    return 2 * count_weights(Path(source)) + 64 * 2**20
