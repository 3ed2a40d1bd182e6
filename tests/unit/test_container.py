"""The container's files run commands that exist, on ports that they publish, and copy files that are there."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.unit.test_docs import check_small_doge


ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
# Each instruction of the Dockerfile, with its words.
DOCKERFILE = [
    line.split(maxsplit=1)
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
PORTS = {"server": 8000, "jupyter": 8888, "tensorboard": 6006}


def read(instruction):
    return [words for name, words in DOCKERFILE if name == instruction]


@pytest.mark.parametrize("name", COMPOSE)
def test_services_run_commands_that_exist(name):
    program, *words = COMPOSE[name]["command"]
    if program == "small-doge":
        check_small_doge(words)
    else:
        assert program in ("jupyter", "tensorboard")


def test_image_serves_as_the_service_does():
    command = json.loads(read("CMD")[0])
    assert command == COMPOSE["server"]["command"]


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_each_port_is_listened_on_published_to_this_machine_and_asked_for_health(name, port):
    service = COMPOSE[name]
    assert str(port) in service["command"] and "0.0.0.0" in service["command"]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    check = service.get("healthcheck", {}).get("test") or json.loads(read("HEALTHCHECK")[0].partition("CMD ")[2])
    assert f"http://127.0.0.1:{port}/" in check[-1]
    compile(check[-1], name, "exec")


def test_image_exposes_the_ports_and_runs_without_rights():
    assert [int(port) for port in read("EXPOSE")[0].split()] == list(PORTS.values())
    user, group = read("USER")[-1].split(":")
    assert int(user) > 0 and int(group) > 0 and f"--uid {user}" in " ".join(read("RUN"))
    assert all(COMPOSE[name]["volumes"][0] == f"work:{read('VOLUME')[0]}" for name in COMPOSE)


def test_health_is_a_route_of_the_server():
    routes = (ROOT / "src/small_doge/webui/routes/system.py").read_text()
    path = re.search(r"http://127\.0\.0\.1:8000(/\w+)", read("HEALTHCHECK")[0])[1]
    assert f'"{path}"' in routes


def test_what_is_copied_is_there_and_reaches_the_build():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for words in read("COPY") for name in words.split()[:-1]]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_build_arguments_and_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    arguments = {words.partition("=")[0] for words in read("ARG")}
    given = COMPOSE["server"]["build"]["args"]
    assert set(given) <= arguments
    extras = set(re.search(r"EXTRAS=(\S+)", (ROOT / "compose.cuda.yaml").read_text())[1].split(",")) | {"all"}
    assert extras <= set(project["project"]["optional-dependencies"])
    version = dict(words.partition("=")[::2] for words in read("ARG"))["PYTHON_VERSION"]
    assert f"Programming Language :: Python :: {version}" in project["project"]["classifiers"]


def test_services_with_gpus_are_services():
    cuda = yaml.safe_load((ROOT / "compose.cuda.yaml").read_text())["services"]
    assert set(cuda) <= set(COMPOSE) and all(service == {"gpus": "all"} for service in cuda.values())


def test_guide_names_what_the_files_have():
    guide = (ROOT / "docs" / "container.md").read_text()
    assert all(f"| `{name}` |" in guide for name in COMPOSE)
    assert all(f"http://127.0.0.1:{port}" in guide for port in PORTS.values())
    for words in re.findall(r"^docker (?:compose )?run .* small-doge (.*)$", guide, flags=re.MULTILINE):
        check_small_doge(shlex.split(words))
