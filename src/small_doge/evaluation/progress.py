"""One progress bar for all tasks of a suite, with the time that is left."""

from collections.abc import Sequence

from tqdm import tqdm

from .task_files import LoadedTask


SAMPLED_ROWS = 50  # of a task, by which its work is estimated
CHARACTERS_PER_TOKEN = 4
GENERATION_COST = 5  # of a token that is written, in tokens that are read
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class SuiteProgress:
    """Shows how much of a suite is done, by an estimate of how much is to be computed for each task.

    Args:
        tasks: that are to be run.
        max_length: tokens of the longest text that the model takes.
    """

    def __init__(self, tasks: Sequence[LoadedTask], max_length: int) -> None:
        self.names = [(task.name, task.shots) for task in tasks]
        self.works = [estimate_work(task, max_length) for task in tasks]
        self.number = -1
        self.bar = tqdm(total=sum(self.works), bar_format=BAR, dynamic_ncols=True, smoothing=0.1, disable=not tasks)

    def begin_task(self, task: LoadedTask) -> None:
        """Name the task that is run now."""
        self.number = self.names.index((task.name, task.shots))
        self.bar.set_description(f"{task.name}, {task.shots}-shot ({self.number + 1} of {len(self.names)})")

    def report(self, share: float) -> None:
        """Count a share of the requests of the task that is run now as done."""
        self.bar.update(min(share * self.works[self.number], self.bar.total - self.bar.n))  # sums are not exact

    def close(self) -> None:
        """End the bar where it stands."""
        self.bar.close()


def estimate_work(task: LoadedTask, max_length: int) -> float:
    """Estimate how much a model computes for a task, in tokens that are read, by the texts of a sample of its rows.

    What several choices share is read once, and an answer counts as long as it may become.
    """
    answer = GENERATION_COST * task.config.get("generation_kwargs", {}).get("max_gen_toks", 0)
    rows = task.rows[:: max(1, len(task.rows) // SAMPLED_ROWS)]
    sizes = [sum(len(str(value)) for value in row.values()) / CHARACTERS_PER_TOKEN for row in rows]
    return sum(min(size, max_length) + answer for size in sizes) / len(rows) * len(task.rows)
