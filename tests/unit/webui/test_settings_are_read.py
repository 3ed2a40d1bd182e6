"""No setting of the server is for show: something reads it of the settings, and does not just mention or pass it on."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import small_doge.webui
from small_doge.webui.settings import ServeSettings


KIND = ServeSettings.__name__
# These are there to permit other settings: `ServeSettings` itself reads them when it is made.
READ_WHEN_MADE = {"no_api_key"}


def is_kind(annotation):
    return annotation is not None and KIND in ast.unparse(annotation)


def list_holders(function, makers):
    """List the names by which a function knows the server's settings: arguments, and what makers of settings return."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = {argument.arg for argument in arguments if is_kind(argument.annotation)}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) in makers
        ):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def list_read_settings(source):
    """List the attributes of settings that a module reads: of arguments and variables of that kind, or of `X.settings`."""
    tree, read = ast.parse(source), set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    makers = {KIND, *(function.name for function in functions if is_kind(function.returns))}
    for function in functions:
        holders = list_holders(function, makers)
        for node in ast.walk(function):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            of = node.value
            if (isinstance(of, ast.Name) and of.id in holders) or (
                isinstance(of, ast.Attribute) and of.attr == "settings"
            ):
                read.add(node.attr)
    return read


def test_every_setting_is_read_by_something():
    paths = [path for path in Path(small_doge.webui.__file__).parent.rglob("*.py") if path.name != "settings.py"]
    read = set().union(*(list_read_settings(path.read_text(encoding="utf-8")) for path in paths))
    assert {setting.name for setting in fields(ServeSettings)} - read == READ_WHEN_MADE


@pytest.mark.parametrize(
    "source",
    [
        "# settings.ghost",
        "def f(settings: ServeSettings):\n    '''Reads settings.ghost.'''\n    return 'settings.ghost'",
        "def f(settings: ServeSettings):\n    settings.ghost = 1",
        "def f(settings: dict):\n    return settings.ghost",
        "def f(settings: ServeSettings, other: Thing):\n    return other.ghost",
        "def f(settings: ServeSettings):\n    return replace(settings, ghost=1)",
    ],
)
def test_what_only_looks_like_reading_does_not_count(source):
    assert "ghost" not in list_read_settings(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(settings: ServeSettings):\n    return settings.ghost",
        "def f(self):\n    return self.settings.ghost",
        "def make() -> ServeSettings: ...\ndef f():\n    shared = make()\n    return shared.ghost",
        "async def f(s: ServeSettings | None):\n    def inner():\n        return s.ghost\n    return inner",
    ],
)
def test_reading_counts(source):
    assert list_read_settings(source) >= {"ghost"}
