"""Packages whose names are imported when they are asked for."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .extras import explain_missing


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package.

    A name whose module needs a package that is not installed raises an error that tells which extra brings it.

    Args:
        package: its `__name__`.
        modules: the module that defines each name, relative to the package.
    """

    def load_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(modules[name], package), name)
        except ModuleNotFoundError as error:
            raise explain_missing(error, f"{package}.{name}") from error
        setattr(sys.modules[package], name, value)
        return value

    return load_name
