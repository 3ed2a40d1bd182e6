"""A model that a server offers: its name, where its files are, and what runs it while it is loaded."""

import asyncio
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..inference import Engine
from .errors import ApiError
from .model_files import describe_files, estimate_bytes, find_folder, find_newest
from .worker import EngineWorker


class ModelEntry:
    """A model that the server offers.

    Attributes:
        name: what clients call it.
        source: folder or hub name.
        folder: where its files are; it is not there while a hub name is not yet downloaded.
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
    def folder(self) -> Path:
        """Find the folder that holds the model's files."""
        return find_folder(self.source)

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
        self._newest = find_newest(self.folder)
        self.created = self._newest // 10**9

    @property
    def has_changed(self) -> bool:
        """Tell whether the folder no longer holds what is loaded: unload the model, and load it again."""
        return self.is_loaded and find_newest(self.folder) != self._newest

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
        worker = self._worker  # it may be unloaded meanwhile
        return estimate_bytes(self.folder) if worker is None else worker.engine.nbytes

    def describe(self) -> dict[str, Any]:
        """Describe the model by its files; what they do not tell is None."""
        worker = self._worker
        facts = {"loaded": worker is not None, "changed": self.has_changed, **describe_files(self.folder)}
        if worker is not None:
            facts["can_chat"] = bool(getattr(worker.engine.tokenizer, "chat_template", None))
            facts["max_length"] = worker.engine.backend.max_length
        return facts
