"""`small-doge env`."""

import importlib.metadata
import platform
import re

from rich.console import Console

from .tables import show_table


def missing_for_extras() -> dict[str, list[str]]:
    """List for each extra the packages that are not installed."""
    missing: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("small-doge") or []:
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        if extra and name:
            found = missing.setdefault(extra[1], [])
            try:
                importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                found.append(name[0])
    return missing


def show_environment() -> None:
    """Print versions, devices, cores, memory, and what each extra lacks."""
    from ..utils.hardware import describe_device

    console = Console()
    names = ("small-doge", "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors")
    versions = [("python", platform.python_version()), *((name, importlib.metadata.version(name)) for name in names)]
    show_table(console, ("Package", "Version"), versions, "Versions")
    machine = [("system", platform.platform())]
    for name, value in describe_device().items():
        shown = ", ".join(value) or "none" if isinstance(value, list) else str(value)
        machine.append((name.replace("_", " "), shown))
    show_table(console, ("Machine", "Value"), machine, "This machine", prose=("Value",))
    extras = [
        (extra, ", ".join(packages) or "nothing", f"pip install 'small-doge[{extra}]'" if packages else "")
        for extra, packages in sorted(missing_for_extras().items())
    ]
    show_table(console, ("Extra", "Missing", "Install"), extras, "Extras", prose=("Missing",))
