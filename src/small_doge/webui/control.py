"""What concerns the whole server, which may be several replicas: ending a generation, models in memory, counters.

Each process has a `LocalControl`, which does its own part. Routes ask the `ControlPlane`, which lets every replica do its
part and puts the parts together. A server without Ray Serve is its own only replica.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from prometheus_client import Metric
from starlette.concurrency import run_in_threadpool

from ..utils.errors import UserError
from .errors import ApiError, to_api_error
from .generation import Generator
from .metrics import Metrics, label_replicas, render
from .model_entry import ModelEntry
from .registry import ModelRegistry


# Calls a method of every replica's `LocalControl` by its name, and returns what each has answered.
Broadcast = Callable[..., Awaitable[list[Any]]]


class LocalControl:
    """The part of one process. What its methods return can be sent to another one.

    Args:
        registry: its models.
        metrics: its counters.
        generator: its running generations.

    Attributes:
        name: tells the counters of replicas apart.
    """

    def __init__(self, registry: ModelRegistry, metrics: Metrics, generator: Generator) -> None:
        self.registry = registry
        self.metrics = metrics
        self.generator = generator
        self.name = "0"

    async def perform(self, action: str, *arguments: Any) -> Any:
        """Call a method by its name. An error of the request is returned: it may have to pass to another process."""
        try:
            return await getattr(self, action)(*arguments)
        except (ApiError, UserError) as error:
            return to_api_error(error)

    async def cancel(self, answer_id: str) -> bool:
        """End a generation by the id of its answer; tell whether it was running here."""
        generation = self.generator.running.get(answer_id)
        if generation is None or generation.is_closed:
            return False
        for stream in generation.choices:
            stream.cancel()
        return True

    async def load(self, model: str) -> dict[str, Any]:
        """Load a model, and return its status."""
        with await self.registry.acquire(model) as entry:
            return await run_in_threadpool(describe_status, entry)

    async def unload(self, model: str, only_idle: bool = False) -> dict[str, Any]:
        """Free the memory of a model, and return its status.

        Args:
            model: its name.
            only_idle: whether one that requests use, or that would have to wait for another to load, stays loaded without
                an error.
        """
        entry = self.registry.find(model)
        if not only_idle:
            await self.registry.unload(entry)
        elif not self.registry.is_loading:
            with suppress(ApiError):  # requests use it, or came while it waited
                await self.registry.unload(entry)
        return await run_in_threadpool(describe_status, entry)

    async def list_models(self) -> list[dict[str, Any]]:
        """Return the status of every model."""
        await run_in_threadpool(self.registry.rescan)
        entries = list(self.registry.entries.values())
        return await run_in_threadpool(lambda: [describe_status(entry) for entry in entries])

    async def collect_metrics(self) -> tuple[str, list[Metric]]:
        """Return what was counted, with the name of this replica."""
        return self.name, await run_in_threadpool(self._collect)

    def _collect(self) -> list[Metric]:
        for entry in self.registry.entries.values():
            worker = entry.worker if entry.is_loaded else None
            self.metrics.memory.labels(entry.name).set(entry.count_bytes() if worker else 0)
            self.metrics.unfinished.labels(entry.name).set(worker.num_unfinished if worker else 0)
            self.metrics.waiting.labels(entry.name).set(worker.num_waiting if worker else 0)
        return list(self.metrics.registry.collect())


class ControlPlane:
    """Lets all replicas of a server do something, and puts together what they answer.

    Args:
        local: the part of this process.
        broadcast: calls all replicas, this one among them; None if there is no other.
    """

    def __init__(self, local: LocalControl, broadcast: Broadcast | None = None) -> None:
        self.local = local
        self.broadcast = broadcast

    async def _ask_all(self, action: str, *arguments: Any) -> list[Any]:
        """Let all replicas do their part.

        Raises:
            ApiError: one of them could not. The others have done it all the same.
        """
        if self.broadcast is None:
            answers = [await self.local.perform(action, *arguments)]
        else:
            answers = await self.broadcast(action, *arguments)
        for answer in answers:
            if isinstance(answer, ApiError):
                raise answer
        return answers

    async def cancel(self, answer_id: str) -> bool:
        """End a generation by the id of its answer, whichever replica runs it; tell whether one did."""
        return any(await self._ask_all("cancel", answer_id))

    async def load(self, model: str) -> dict[str, Any]:
        """Load a model in every replica, and return its status; raises as `ModelRegistry.acquire` does."""
        return merge_statuses(await self._ask_all("load", model))

    async def unload(self, model: str, only_idle: bool = False) -> dict[str, Any]:
        """Free the memory of a model in every replica that does not use it, and return its status.

        Args:
            model: its name.
            only_idle: whether replicas that use the model, or load another, keep it without an error.

        Raises:
            ApiError: there is no such model, or a replica uses it.
        """
        return merge_statuses(await self._ask_all("unload", model, only_idle))

    async def list_models(self) -> list[dict[str, Any]]:
        """Return the status of every model."""
        by_name: dict[str, list[dict[str, Any]]] = {}
        for statuses in await self._ask_all("list_models"):
            for status in statuses:
                by_name.setdefault(status["name"], []).append(status)
        return [merge_statuses(statuses) for statuses in by_name.values()]

    async def render_metrics(self) -> bytes:
        """Return what was counted, with a label for the replica if there may be several."""
        parts = await self._ask_all("collect_metrics")
        return render(parts[0][1] if self.broadcast is None else label_replicas(parts))


def describe_status(entry: ModelEntry) -> dict[str, Any]:
    """Describe a model and its state in this process."""
    return {
        "id": entry.name,
        "name": entry.name,
        "status": entry.status,
        "error": entry.error,
        "memory_bytes": entry.count_bytes(),
        "num_requests": entry.num_users,
        **entry.describe(),
    }


def merge_statuses(statuses: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put together what replicas say of one model: loaded is what any of them has loaded, and numbers are those of all."""
    parts = list(statuses)
    loaded = [part for part in parts if part["loaded"]]
    return {
        **(loaded or parts)[0],
        "error": next((part["error"] for part in parts if part["error"] is not None), None),
        "changed": any(part["changed"] for part in parts),
        "memory_bytes": sum(part["memory_bytes"] for part in loaded) or parts[0]["memory_bytes"],
        "num_requests": sum(part["num_requests"] for part in parts),
        "num_replicas": len(parts),
        "num_loaded": len(loaded),
    }
