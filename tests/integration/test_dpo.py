"""Preference optimisation through the real command line, on a base model made for it."""

import json

import pytest
from tests.integration.conftest import assert_a_stopped_run_ends_alike

from small_doge.trainer.callbacks import read_log


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpo")
    with open(folder / "pairs.jsonl", "w") as file:
        for i in range(160):
            row = {
                "prompt": f"What is {i % 40} + {i % 7}?",
                "chosen": f"It is {i % 40 + i % 7}.",
                "rejected": "Go away! " * (1 + i % 3),
            }
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture
def align(shared, train_stage):
    """Align the base model."""

    def call(output, **changes):
        settings = {
            "datasets_and_ratios": [{str(shared / "pairs.jsonl"): 1.0}],
            "total_sample_size": -1,
            "learning_rate": 1e-3,
            "max_steps": 10,
            **changes,
        }
        return train_stage("dpo", output, **settings)

    return call


@pytest.fixture
def unbroken(shared, align):
    if not (shared / "aligned" / "finished.json").exists():
        align(shared / "aligned")
    return shared / "aligned"


def test_an_aligned_model_prefers_chosen_answers(unbroken):
    rows = [row for row in read_log(unbroken / "training_log.jsonl") if "rewards/margins" in row]
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"] and rows[-1]["rewards/accuracies"] > 0.9
    facts = json.loads((unbroken / "finished.json").read_text())
    assert facts["stage"] == "Direct preference optimisation" and facts["held-out rewards accuracies"] > 0.8
    assert not [path for path in unbroken.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_a_stopped_run_ends_with_the_same_weights(unbroken, align, tmp_path):
    assert_a_stopped_run_ends_alike(unbroken, align, tmp_path / "stopped")


def test_a_model_that_learns_nothing_says_so(align, tmp_path):
    done = align(tmp_path / "still", learning_rate=1e-9, eval_strategy="no", test_size=0)
    assert "the reward margin has not moved" in done.stderr


def test_streams_and_data_without_preferences_are_refused(align, tmp_path):
    done = align(tmp_path / "stream", streaming=True, check=False)
    assert done.returncode == 1 and "direct preference optimisation needs prepared rows" in done.stderr
    done = align(tmp_path / "none", datasets_and_ratios=[{"embedded:chat:50": 1.0}], check=False)
    assert done.returncode == 1 and "none of the data sets holds preferences" in done.stderr
