"""No field of a request is taken and then forgotten."""

import ast
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import small_doge.webui.routes as routes
from small_doge.webui.routes.bodies import Body


def list_bodies():
    for module in pkgutil.iter_modules(routes.__path__):
        import_module(f"{routes.__name__}.{module.name}")
    found, waiting = [], [Body]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def list_read_names(source):
    """List the attributes that a module reads of anything, and the names that it gives to `getattr` in a text."""
    tree = ast.parse(source)
    names = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return names | {word for text in texts for word in text.split()} if "getattr" in source else names


READ = {
    name
    for path in Path(routes.__path__[0]).glob("*.py")
    for name in list_read_names(path.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("body", list_bodies(), ids=lambda kind: kind.__name__)
def test_every_field_is_read(body):
    assert set(body.model_fields) <= READ
    assert inspect.getdoc(body)
