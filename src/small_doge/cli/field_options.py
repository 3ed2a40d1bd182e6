"""Command-line options made of the fields of a dataclass, with their help texts."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Annotated, Any, get_origin, get_type_hints

import typer


Command = Callable[..., None]


def with_field_options(
    settings: type, names: Sequence[str], argument: str, build: Callable[[dict[str, Any]], Any] = dict
) -> Callable[[Command], Command]:
    """Replace one argument of a command by an option for each named field of a dataclass.

    Args:
        settings: dataclass whose fields have a `help` in their metadata, and an `option` where its name differs.
        names: fields to offer.
        argument: the command's argument, which gets what `build` makes.
        build: makes it of the values that were given; those left out are not in it.
    """
    known = {field.name: field for field in fields(settings)}
    offered = [_make_parameter(known[name]) for name in names]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            given = {name: _convert(known[name], value) for name, value in given.items() if value is not None}
            command(**values, **{argument: build(given)})

        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == argument:
                parameters += offered
            else:
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _make_parameter(field: Field) -> inspect.Parameter:
    factory = field.default_factory
    default: Any = field.default if factory is MISSING else ",".join(factory())
    flags = [field.metadata["option"]] if "option" in field.metadata else []
    commas = " Write them with a comma between." if get_origin(field.type) is list else ""
    option = typer.Option(*flags, help=field.metadata["help"] + commas)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[_choose_type(field), option]
    )


def _choose_type(field: Field) -> Any:
    """Return what a command line can give for a field: lists are written with commas between their entries."""
    if get_origin(field.type) is list:
        return str
    return str | None if field.type == bool | str | None else field.type


def _convert(field: Field, value: Any) -> Any:
    return value.split(",") if get_origin(field.type) is list else value
