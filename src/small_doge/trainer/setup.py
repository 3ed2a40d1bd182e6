"""What the module of a stage tells the runner."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .arguments import Arguments


def _no_extras(run: Any, model: Any, tokenizer: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class TrainingSetup:
    """How a stage trains.

    Args:
        title: what is done, for the model card, the loss curve and `finished.json`.
        arguments: classes of the settings: of the model, the data and the training.
        trainer: class of the trainer.
        columns: columns that prepared rows must have.
        row_format: format of the rows where it is not that of the stage's entry.
        callbacks: classes of callbacks beside those of every run.
        build_extras: further arguments of the trainer, from the run, the model and the tokenizer.
        streams: whether rows can be prepared while it trains.
        counts_own_tokens: whether the trainer counts tokens itself, as those that generate do.
    """

    title: str
    arguments: Arguments
    trainer: type
    columns: tuple[str, ...] = ("input_ids", "seq_lengths")
    row_format: str | None = None
    callbacks: tuple[type, ...] = ()
    build_extras: Callable[[Any, Any, Any], dict[str, Any]] = _no_extras
    streams: bool = False
    counts_own_tokens: bool = False
