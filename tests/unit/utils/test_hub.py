"""What the hub's cache holds, without a download."""

import pytest

from small_doge.utils.hub import find_cached_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with one model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--smalldoge--tiny"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    return snapshot


def test_a_cached_model_has_a_folder(cache):
    assert find_cached_folder("smalldoge/tiny") == cache


@pytest.mark.parametrize("name", ["smalldoge/other", "a/b/c", "../x", ""])
def test_others_have_none(cache, name):
    assert find_cached_folder(name) is None
