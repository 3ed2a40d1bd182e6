"""The workflows call what the Makefile has, with versions that the project allows, by actions that can't change."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Of the package itself; tools for developers and other hardware move on their own.
UNTESTED = {"all", "docs", "dev", "cuda", "deepspeed", "trackers"}


def read_jobs(path):
    return yaml.safe_load(path.read_text())["jobs"]


def list_steps(path):
    return [step for job in read_jobs(path).values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_and_set_variables_of_the_makefile(path):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, flags=re.MULTILINE))
    variables |= set(re.findall(r"^([A-Z_]+) :=", MAKEFILE, flags=re.MULTILINE))
    called = [
        line.split()[1:]
        for step in list_steps(path)
        for line in step.get("run", "").splitlines()
        if line.strip().startswith("make ")
    ]
    assert called
    for words in called:
        text = re.sub(r"\$\{\{.*?\}\}", "VALUE", " ".join(words))
        for word in text.split():
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets), word


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_named_with_their_version(path):
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    for action, comment in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
        else:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", comment), (
                action
            )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_alone_and_every_job_ends(path):
    content = yaml.safe_load(path.read_text())
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert "uses" in job or job["timeout-minutes"] <= 90
        assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})


def test_only_what_was_checked_and_built_is_published():
    jobs = read_jobs(ROOT / ".github" / "workflows" / "release.yml")
    assert jobs["publish"]["needs"] == "build" and jobs["build"]["needs"] == "checks"


def test_tests_run_on_every_python_with_oldest_usual_and_newest_dependencies():
    matrix = read_jobs(ROOT / ".github" / "workflows" / "checks.yml")["tests"]["strategy"]["matrix"]["include"]
    versions = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r"Python :: \d\.", text)}
    assert {entry["python"] for entry in matrix} == versions
    assert PROJECT["requires-python"] == f">={min(versions, key=lambda text: int(text.partition('.')[2]))}"
    assert {entry["versions"] for entry in matrix} == {"oldest", "usual", "newest"}
    for entry in matrix:
        if not entry["constraints"]:
            assert (entry["versions"], entry["torch"]) == ("newest", "torch")
            continue
        pins = (ROOT / entry["constraints"]).read_text().splitlines()
        assert entry["torch"] in pins


def test_oldest_constraints_are_the_bounds_of_the_project():
    extras = PROJECT["optional-dependencies"].items()
    wanted = [*PROJECT["dependencies"], *(name for extra, names in extras if extra not in UNTESTED for name in names)]
    bounds = [
        re.fullmatch(r"([\w-]+)(?:\[.*\])?(?:>=|~=)([\d.]+)(?:,<[\d.]+)?", text)
        for text in wanted
        if "small-doge" not in text
    ]
    assert all(bounds), "each has a lower bound"
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: pins.get(name) for name in pins} == {bound[1]: bound[2] for bound in bounds}
