"""Which values a setting may have: told with its name before anything runs, where a library fails later or trains nothing."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may have.

    Args:
        says: which they are, to go on after "must be".
        holds: tells whether a finite number is one of them.
    """

    says: str
    holds: Callable[[float], bool]


COUNT = Range("at least 1", lambda value: value >= 1)
NOT_NEGATIVE = Range("a number of at least 0", lambda value: value >= 0)
POSITIVE = Range("a number above 0", lambda value: value > 0)
SHARE = Range("a number from 0 to 1", lambda value: 0 <= value <= 1)
BELOW_ONE = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
BELOW_HALF = Range("at least 0 and below 0.5", lambda value: 0 <= value < 0.5)
TOP_SHARE = Range("above 0 and at most 1", lambda value: 0 < value <= 1)
SEED = Range(f"a whole number from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32)

# Of the stages whose model writes completions while it trains.
GENERATION = {
    "temperature": POSITIVE,
    "top_p": TOP_SHARE,
    "top_k": NOT_NEGATIVE,
    "min_p": SHARE,
    "repetition_penalty": POSITIVE,
    "max_completion_length": COUNT,
}
# Of the stages that compare with a reference model.
REFERENCE = {"ref_model_mixup_alpha": SHARE, "ref_model_sync_steps": COUNT, "router_aux_loss_coef": NOT_NEGATIVE}


def check_ranges(args: Any, ranges: Mapping[str, Range]) -> None:
    """Refuse numbers that are not finite or not in the range of their setting; None is a setting that is not set.

    Raises:
        UserError: with the setting, its value, what it may be, and its default.
    """
    defaults = {field.name: field.default for field in fields(args)}
    for name, wanted in ranges.items():
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and wanted.holds(value)):
            usual = "" if defaults[name] is None else f" for {defaults[name]}"
            raise UserError(f"{name}={value} must be {wanted.says}; leave it out{usual}")


def check_choices(args: Any, choices: Mapping[str, Collection[str]]) -> None:
    """Refuse names that a setting, which may be a list of them, does not know.

    Raises:
        UserError: with the setting, the name, the near miss and all that are known.
    """
    for setting, known in choices.items():
        value = getattr(args, setting)
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and known and name not in known:
                raise UserError(unknown_name_message(setting, name, known, limit=len(known)))


def find_choices(config: type, name: str) -> list[str]:
    """Find the names that a setting of TRL knows, which its help text alone lists; none if that no longer does."""
    text = next(field.metadata["help"] for field in fields(config) if field.name == name)
    listed = re.search(r"values are:? ([^.]*)", text)
    return re.findall(r"[`'](\w+)[`']", listed[1]) if listed else []
