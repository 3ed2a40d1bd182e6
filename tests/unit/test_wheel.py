"""What `pip install small-doge` brings: the whole package and the demo's recipes, and nothing of tests or caches."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import small_doge


ROOT = Path(__file__).parents[2]
RECIPES = "recipes/tiny/"


def list_tracked(*folders):
    """Files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no clone of the repository")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def build(kind, folder):
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as file:
        yield file


def test_wheel_is_the_package_and_the_recipes_of_the_demo(wheel):
    package = {name.removeprefix("src/") for name in list_tracked("src/small_doge")}
    recipes = {f"small_doge/{name}" for name in list_tracked(RECIPES)}
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == package | recipes and recipes
    assert {
        "small_doge/webui/static/index.html",
        "small_doge/webui/static/vendor/ort/ort.wasm.bundle.min.mjs",
    } <= names


def test_metadata_of_the_wheel_is_what_an_index_shows(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == small_doge.__version__ and metadata["License-Expression"] == "Apache-2.0"
    assert not re.findall(r"\]\((?!https://|#)[^)]+\)|(?:src|srcset|href)=\"(?!https://|#)", metadata.get_payload())


def test_source_archive_can_build_the_wheel_and_has_no_leftovers(tmp_path):
    with tarfile.open(build("sdist", tmp_path)) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    made = {"PKG-INFO", "hatch_build.py", "pyproject.toml", ".gitignore", "LICENSE"}
    assert names - made <= list_tracked(".")
    assert list_tracked("src/small_doge", RECIPES, "tests") | made <= names
