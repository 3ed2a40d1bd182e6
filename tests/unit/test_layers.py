"""Each layer imports only from layers before it, and importing the package does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import small_doge


PACKAGE = Path(small_doge.__file__).parent
LAYERS = [
    "utils",
    "ops",
    "models",
    "optim",
    "processor",
    "inference",
    "trainer",
    "evaluation",
    "compat",
    "webui",
    "cli",
]
NEVER = {("processor", "models")}
NAMES = "compat.names"  # tables of older names, which import nothing but utils: every layer may use them


def imported_layers(path):
    """Layers that a file imports from, by absolute or relative imports."""
    parents = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")
            if node.level:
                base = [*parents][: len(parents) - node.level + 1]
                full = [*base, *module]
            elif module[0] == "small_doge":
                full = module[1:]
            else:
                continue
            named = [*full, *(alias.name for alias in node.names)] if full == ["compat"] else full
            if ".".join(named[:2]) != NAMES:
                yield full[0] if full and full[0] else ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("small_doge."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE), ids=str)
def test_layer_imports_only_what_stands_before_it(path):
    layer = "ops" if path == PACKAGE / "compat" / "names.py" else path.relative_to(PACKAGE).parts[0]
    for other in imported_layers(path):
        if other in LAYERS and other != layer:
            assert LAYERS.index(other) < LAYERS.index(layer), f"{layer} imports {other}"
            assert (layer, other) not in NEVER


def test_import_registers_doge_and_loads_no_heavy_library():
    code = (
        "import sys, small_doge; from transformers import AutoConfig; "
        "assert AutoConfig.for_model('doge').__class__.__module__.startswith('small_doge'); "
        "assert AutoConfig.for_model('doge_moe').is_moe; "
        "print([m for m in ('datasets', 'matplotlib', 'typer', 'small_doge.trainer') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
