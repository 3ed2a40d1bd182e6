"""Options that several commands take."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..inference.sampling_options import SamplingOptions
from ..utils.errors import UserError
from .field_options import with_field_options


ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Exported folder, checkpoint folder or hub name; the demo's newest stage if not set."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Number of processor threads; chosen by a quick measurement if not set.")
]


class Quantize(StrEnum):
    """Weight formats of an onnx export."""

    none = "none"
    int8 = "int8"
    int4 = "int4"


CachedQuantize = Annotated[
    Quantize,
    typer.Option(help="Weight format for exporting a checkpoint: float32 (none), int8 or int4."),
]

# Sampling options of every command that generates text.
SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
# What a command line gives for an option, where that is not the field's own type.
COMMAND_LINE_TYPES = {"stop": list[str] | None, "json_schema": str | None}


def with_sampling_options(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named fields of `SamplingOptions` as options, with their help and limits.

    The command gets them as its argument `sampling`, checked, before it does anything.

    Args:
        names: fields to offer.
        defaults: their defaults where these differ from the fields' own.
    """
    types = {name: kind for name, kind in COMMAND_LINE_TYPES.items() if name in names}
    return with_field_options(SamplingOptions, names, "sampling", _build_sampling, defaults, types)


def _build_sampling(given: dict[str, Any]) -> SamplingOptions:
    if "json_schema" in given:
        given["json_schema"] = read_schema(given["json_schema"])
    return SamplingOptions(**given)


def read_schema(given: str) -> str:
    """Read a JSON schema that is given as text, or as the name of a file.

    Raises:
        UserError: it is neither.
    """
    if given.lstrip().startswith(("{", "true")):
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json-schema {given}: neither a schema nor a file that can be read ({error})") from error
