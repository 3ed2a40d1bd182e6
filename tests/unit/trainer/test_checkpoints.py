import json

import pytest

from small_doge.trainer.checkpoints import find_last_whole, rotate
from small_doge.utils.files import find_damage, write_manifest


@pytest.fixture
def run(tmp_path):
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights" * step)
        write_manifest(folder)
    return tmp_path


def test_the_last_by_number_is_found(run):
    assert find_last_whole(run).name == "checkpoint-100"
    assert find_last_whole(run / "nowhere") is None


@pytest.mark.parametrize(
    ("tear", "reason"),
    [
        (lambda f: (f / "manifest.json").unlink(), "was not finished"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest can't be read"),
        (lambda f: (f / "model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"we"), "has 2 bytes, not 700"),
        (lambda f: (f / "model.safetensors").write_bytes(b"WEIGHTS" * 100), "checksum"),
    ],
)
def test_a_torn_one_is_noticed_and_the_one_before_is_used(run, tear, reason):
    tear(run / "checkpoint-100")
    assert reason in find_damage(run / "checkpoint-100")
    assert find_last_whole(run).name == "checkpoint-10"


def test_old_ones_go_only_beyond_the_limit(run):
    rotate(run, 2)
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint-10", "checkpoint-100"]
    rotate(run, None)
    assert len(list(run.iterdir())) == 2
    assert json.loads((run / "checkpoint-10" / "manifest.json").read_text())
