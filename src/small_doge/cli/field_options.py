"""Command-line options made of the fields of a dataclass, with their help texts."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Annotated, Any, get_origin, get_type_hints

import typer


Command = Callable[..., None]
# Limits that nobody comes near are left to the dataclass, so that help stays short.
FAR = 1e6


def with_field_options(
    settings: type,
    names: Sequence[str],
    argument: str,
    build: Callable[[dict[str, Any]], Any] = dict,
    defaults: Mapping[str, Any] | None = None,
    types: Mapping[str, Any] | None = None,
) -> Callable[[Command], Command]:
    """Replace one argument of a command by an option for each named field of a dataclass.

    A field's metadata holds its `help`, and may hold `option` (a name that differs from the field's), `min`, `max`,
    `panel` (the part of the help it stands in), and `note` (shown where the option has no default).

    Args:
        settings: the dataclass.
        names: fields to offer.
        argument: the command's argument, which gets what `build` makes.
        build: makes it of the values that were given; those left out are not in it.
        defaults: defaults that differ from the fields' own.
        types: types on the command line that differ from the fields' own.
    """
    known = {field.name: field for field in fields(settings)}
    types = types or {}
    kinds = {name: types.get(name, _choose_type(known[name])) for name in names}
    offered = [_make_parameter(known[name], kinds[name], defaults or {}, name in types) for name in names]

    def decorate(command: Command) -> Command:
        takes_context = "typer_context" in inspect.signature(command).parameters  # it has options of other fields too

        @wraps(command)
        def run(typer_context: typer.Context, **values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            # What nobody gave is left out: what builds the settings may have a default of its own.
            given = {
                name: _convert(known[name], value)
                for name, value in given.items()
                if name in (defaults or {}) or _is_given(typer_context, name)
            }
            context = {"typer_context": typer_context} if takes_context else {}
            command(**values, **context, **{argument: build(given)})

        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == argument:
                parameters += offered
            elif parameter.name != "typer_context":
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
        parameters.append(inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _is_given(context: typer.Context, name: str) -> bool:
    """Tell whether the user gave an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _make_parameter(field: Field, kind: Any, defaults: Mapping[str, Any], has_own_type: bool) -> inspect.Parameter:
    """Make a command's parameter of a field."""
    default = None if has_own_type else defaults.get(field.name, _get_default(field))
    texts = [field.metadata["help"]]
    if _is_list(field):
        texts.append("Separate several with commas.")
    if default is None:
        texts.append(field.metadata.get("note", ""))
    flags = [field.metadata["option"]] if "option" in field.metadata else []
    low, high = field.metadata.get("min"), field.metadata.get("max")
    if high is not None and high >= FAR:
        low = high = None
    panel = field.metadata.get("panel")
    option = typer.Option(*flags, help=" ".join(filter(None, texts)), min=low, max=high, rich_help_panel=panel)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _get_default(field: Field) -> Any:
    factory = field.default_factory
    if factory is MISSING:
        return field.default
    return ",".join(factory()) if _is_list(field) else factory()


def _is_list(field: Field) -> bool:
    return get_origin(field.type) is list


def _choose_type(field: Field) -> Any:
    """Return what a command line can give for a field: lists are written with commas between their entries."""
    if _is_list(field):
        return str
    return str | None if field.type == bool | str | None else field.type


def _convert(field: Field, value: Any) -> Any:
    return value.split(",") if _is_list(field) else value
