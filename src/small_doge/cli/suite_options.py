"""What `small-doge eval` and `small-doge eval compare` ask of a model, as options."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .field_options import with_field_options


@dataclass(frozen=True)
class SuiteOptions:
    """Which items a model is asked, and how; each field's metadata has its help."""

    suite: str = field(
        default="base",
        metadata={
            "help": "Tasks and how they are asked: base, instruct, reason, or demo, whose questions are in the package."
        },
    )
    tasks: str | None = field(
        default=None,
        metadata={"help": "Tasks to run instead of the whole suite, separated by commas."},
    )
    data_root: Path = field(
        default=Path("data"), metadata={"help": "Folder with the data of the tasks, one JSON lines file each."}
    )
    limit: int | None = field(
        default=None, metadata={"help": "Number of items of each task; all if not set.", "min": 1}
    )
    shots: str | None = field(
        default=None,
        metadata={
            "help": "Number of examples in each prompt, or several numbers; as in the published tables if not set."
        },
    )
    chat: bool | None = field(
        default=None,
        metadata={
            "help": "Whether to ask in the chat template; as the suite does if not set.",
            "option": "--chat/--no-chat",
        },
    )
    skip_missing: bool = field(
        default=False,
        metadata={"help": "Leave out tasks whose data are missing, and list them.", "option": "--skip-missing"},
    )
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Number of texts to compute together; chosen by a quick measurement if not set.", "min": 1},
    )


def with_suite_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of `SuiteOptions` as options; it gets them as its argument `how`."""
    names = [one.name for one in fields(SuiteOptions)]
    return with_field_options(SuiteOptions, names, "how", _build)(command)


def _build(given: dict[str, Any]) -> SuiteOptions:
    return SuiteOptions(**given)
