"""A change of form leaves every loss as it was: few steps of each recipe, by each attention backend, against a file."""

import pytest

from tests.golden import runs


# Measured: at most 1e-15 between plain and AVX2 instructions, one and two threads, and the backends. With the kernels that MKL
# has for older processors, at most 1e-15 by our own losses too, and 1e-7 by those of TRL, which rounds to float32 in places.
OURS, TRLS = {"rel": 1e-9, "abs": 1e-12}, {"rel": 1e-6, "abs": 1e-9}
TOLERANCE = {name: TRLS if name in ("dpo", "grpo", "teach") else OURS for name in runs.RECIPE_STAGES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    runs.prepare(folder)
    return folder


@pytest.mark.parametrize("backend", runs.BACKENDS)
@pytest.mark.parametrize("name", runs.RECIPE_STAGES)
def test_losses_are_those_of_the_file(name, backend, folder):
    now, before = runs.run(name, folder, backend), runs.read_golden(name)[backend]
    differing = [
        f"{name}, {backend}, {key}:\n  old {before.get(key)}\n  new {now.get(key)}"
        for key in before.keys() | now.keys()
        if now.get(key, []) != pytest.approx(before.get(key, []), **TOLERANCE[name])
    ]
    assert not differing, "\n".join([*differing, "If this is meant: make golden, and say why in the commit."])


def test_every_recipe_that_trains_has_a_file():
    recipes = {path.stem for path in runs.RECIPES.glob("*.yaml")} - {"tokenizer"}
    assert recipes == set(runs.RECIPE_STAGES) == {path.stem for path in runs.FOLDER.glob("*.json")}
    for name in runs.RECIPE_STAGES:
        golden = runs.read_golden(name)
        assert set(golden) == set(runs.BACKENDS)
        assert all(max(map(abs, found["grad_norm"])) > 0.1 for found in golden.values())
