"""Options that several commands take."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..inference import SamplingOptions
from ..inference.sampling_options import LARGEST
from ..utils.errors import UserError


ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Exported folder, checkpoint folder or hub name; the demo's newest stage if not set."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Number of processor threads; chosen by a quick measurement if not set.")
]

# What a command line gives for an option, where that is not the field's own type.
COMMAND_LINE_TYPES = {"stop": list[str] | None, "json_schema": str | None}
COMMAND_LINE_HELP = {"json_schema": "Give a file, or the schema itself."}


def with_sampling_options(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named fields of `SamplingOptions` as options, with their help and limits.

    The command gets them as its argument `sampling`, checked, before it does anything.

    Args:
        names: fields to offer.
        defaults: their defaults where these differ from the fields' own.
    """
    by_name = {field.name: field for field in fields(SamplingOptions)}
    offered = {name: _make_parameter(by_name[name], defaults.get(name, MISSING)) for name in names}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            if chosen.get("json_schema") is not None:
                chosen["json_schema"] = read_schema(chosen["json_schema"])
            command(**values, sampling=SamplingOptions(**chosen))

        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == "sampling":
                parameters += offered.values()
            else:
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _make_parameter(field: Any, default: Any) -> inspect.Parameter:
    """Make a command-line option of a field of `SamplingOptions`."""
    default = field.default if default is MISSING else default
    help = [field.metadata["help"], COMMAND_LINE_HELP.get(field.name)]
    if default is None:
        help.append(field.metadata.get("unset"))
    low, high = field.metadata.get("min"), field.metadata.get("max")
    if high == LARGEST:  # nobody comes near; SamplingOptions checks it
        low = high = None
    option = typer.Option(min=low, max=high, help=" ".join(text for text in help if text))
    kind = COMMAND_LINE_TYPES.get(field.name, field.type)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if field.name in COMMAND_LINE_TYPES else default,
        annotation=Annotated[kind, option],
    )


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
