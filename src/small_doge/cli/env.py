"""`small-doge env`."""

import importlib.metadata
import platform
import re

from rich.console import Console

from .tables import show_table


NAME = "small-doge"
SHOWN = (NAME, "torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "trl", "onnxruntime")


def find_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_for_extras() -> dict[str, list[str]]:
    """List for each extra the packages that are not installed, those of the extras that it includes too."""
    missing: dict[str, list[str]] = {}
    included: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires(NAME) or []:
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        parts = re.match(r"([A-Za-z0-9_.-]+)(?:\[([^\]]*)\])?", requirement)
        if not extra or not parts:
            continue
        found = missing.setdefault(extra[1], [])
        if parts[1] == NAME:
            included.setdefault(extra[1], []).extend(parts[2].split(","))
        elif find_version(parts[1]) is None:
            found.append(parts[1])

    def collect(extra: str) -> set[str]:
        return set(missing[extra]).union(*(collect(other) for other in included.get(extra, ())))

    return {extra: sorted(collect(extra)) for extra in missing}


def show_environment() -> None:
    """Print versions, devices, cores, memory, and what each extra is missing."""
    from ..utils.hardware import describe_device

    console = Console()
    versions = [("python", platform.python_version()), *((name, find_version(name) or "none") for name in SHOWN)]
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
