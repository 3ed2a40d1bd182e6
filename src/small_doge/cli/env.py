"""`small-doge env`."""

import importlib.metadata
import platform
import re

from rich.console import Console
from rich.table import Table

from ..utils.hardware import describe_device


def missing_for_extras() -> dict[str, list[str]]:
    """For each extra, the packages that are not installed."""
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
    console = Console()
    versions = Table("Package", "Version", title="Versions")
    versions.add_row("python", platform.python_version())
    for name in ("small-doge", "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors"):
        versions.add_row(name, importlib.metadata.version(name))
    console.print(versions)
    machine = Table("Machine", "", title="This machine")
    machine.add_row("system", platform.platform())
    for name, value in describe_device().items():
        machine.add_row(name.replace("_", " "), ", ".join(value) or "none" if isinstance(value, list) else str(value))
    console.print(machine)
    extras = Table("Extra", "Missing", "Install", title="Extras")
    for extra, packages in sorted(missing_for_extras().items()):
        command = f"pip install 'small-doge[{extra}]'" if packages else ""
        extras.add_row(extra, ", ".join(packages) or "nothing", command.replace("[", "\\["))
    console.print(extras)
