"""The same preparation on datatrove's executors: processes of this machine, a Slurm or a Ray cluster."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any

import dill
from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from ..utils.extras import needs_extra
from ..utils.logging import get_logger
from ..utils.processes import forks_end_with_us
from ..utils.suggest import unknown_name_message
from .data_config import DataConfig
from .prepare import Preparation, explained


logger = get_logger(__name__)

EXECUTORS = ("local", "slurm", "ray")


@dataclass(frozen=True)
class Cluster:
    """Where tasks run.

    Args:
        executor: local, slurm or ray.
        workers: tasks that run at once; -1 for no limit on a cluster, for all cores on this machine.
        partition: Slurm's.
        time: limit of a Slurm task, as 12:00:00.
        cpus_per_task: cores of a task on a cluster.
        mem_per_cpu_gb: memory of each core on a cluster.
        environment: command that a Slurm task runs first, such as `source .venv/bin/activate`.
    """

    executor: str = "local"
    workers: int = -1
    partition: str | None = None
    time: str = "20:00:00"
    cpus_per_task: int = 1
    mem_per_cpu_gb: int = 4
    environment: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(unknown_name_message("executor", self.executor, EXECUTORS))
        if self.executor == "slurm" and not self.partition:
            raise UserError("executor=slurm needs the name of a partition")
        if self.workers == 0 or self.workers < -1:
            raise UserError(f"workers={self.workers} must be positive, or -1 for no limit")


def import_datatrove() -> Any:
    """Import the library, or say how to get it.

    Raises:
        UserError: it is not installed.
    """
    with needs_extra("cleaning and preparing by executors", "scale"):
        import datatrove.executor
        import datatrove.pipeline.base
    return datatrove


def prepare_at_scale(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    cluster: Cluster,
    failures: Path | None = None,
) -> DatasetDict | None:
    """Make a mix with a task for each shard; the rows are those of `prepare`.

    Tasks that are done are not done again. On Slurm the call returns at once; the same call joins the rows when all tasks
    are done.

    Args:
        config: which data sets, and what to make of them; `cache_dir` lies on a disk that every task sees.
        tokenizer: tokenizer of the model.
        cluster: where tasks run.
        failures: where the caller will put the list of rows that can't be used, for messages.

    Returns:
        The rows by split, or None while tasks are still to run.
    """
    preparation = Preparation(config, tokenizer, failures)
    if not preparation.is_finished:
        with explained(preparation.folder):
            preparation.start()
            shards = [shard for group in preparation.reader.shards for shard in group]
            if not all(preparation.is_made(shard) for shard in shards):
                run_steps([([_make_step(preparation)], len(shards))], cluster, preparation.folder / "logs", "prepare")
            if not all(preparation.is_made(shard) for shard in shards):
                logger.info("tasks were handed to %s; run the same command again when they are done", cluster.executor)
                return None
            preparation.join()
    return preparation.load()


def _make_step(preparation: Preparation) -> Any:
    """Return a step of a datatrove pipeline that makes the shards of its rank."""
    import_datatrove()
    from datatrove.pipeline.base import PipelineStep

    class MakeShards(PipelineStep):
        name, type = "small-doge", "📦 - SHARDS"

        def __init__(self, payload: bytes) -> None:
            super().__init__()
            self.payload = payload

        def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
            mine = dill.loads(self.payload)
            shards = [shard for group in mine.reader.shards for shard in group]
            for shard in shards[rank::world_size]:
                mine.make_shard(shard)
            return data

    return MakeShards(dill.dumps(preparation))


def run_steps(steps: list[tuple[list, int]], cluster: Cluster, logs: Path, name: str) -> None:
    """Run pipelines one after the other, each with its number of tasks; those that are done are passed over.

    Args:
        steps: (pipeline, tasks).
        cluster: where.
        logs: folder for logs and marks of what is done.
        name: of the job.
    """
    previous = None
    for number, (pipeline, tasks) in enumerate(steps):
        executor = _build_executor(pipeline, tasks, cluster, logs / f"{number}-{name}", f"{name}-{number}", previous)
        if cluster.executor == "local":
            with _console_in(logs / f"{number}-{name}.console"), forks_end_with_us():
                executor.run()
        previous = executor
    if cluster.executor != "local":
        previous.run()  # launches what it depends on first


def _build_executor(pipeline: list, tasks: int, cluster: Cluster, logs: Path, name: str, depends: Any) -> Any:
    executor = import_datatrove().executor
    common = {"pipeline": pipeline, "tasks": tasks, "logging_dir": str(logs)}
    if cluster.executor == "local":
        workers = cluster.workers if cluster.workers > 0 else os.cpu_count() or 1
        # A forked worker does not run the caller's script again, as the library's own choice would.
        method = "fork" if "fork" in get_all_start_methods() else "spawn"
        return executor.LocalPipelineExecutor(**common, workers=min(workers, tasks), start_method=method)
    common |= {"workers": cluster.workers, "depends": depends, "cpus_per_task": cluster.cpus_per_task}
    if cluster.executor == "ray":
        if importlib.util.find_spec("ray") is None:
            raise UserError("executor=ray: Ray is not installed; run: pip install ray")
        from datatrove.executor import RayPipelineExecutor

        return RayPipelineExecutor(**common, mem_per_cpu_gb=cluster.mem_per_cpu_gb)
    return executor.SlurmPipelineExecutor(
        **common,
        time=cluster.time,
        partition=cluster.partition,
        mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        job_name=f"small-doge-{name}",
        env_command=cluster.environment,
        slurm_logs_folder=str(logs / "slurm"),
    )


@contextmanager
def _console_in(path: Path) -> Iterator[None]:
    """Send what the library and its processes print to a file."""
    import loguru

    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(path, "a", encoding="utf-8") as file, redirect_stderr(file):
            os.dup2(file.fileno(), 2)
            yield
    finally:
        loguru.logger.remove()  # its handlers hold the file
        os.dup2(saved, 2)
        os.close(saved)
