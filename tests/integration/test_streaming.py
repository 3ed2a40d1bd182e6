"""Training on a stream through the real command line."""

import pytest
from tests.integration.conftest import assert_a_stopped_run_ends_alike


STREAMED = {"streaming": True, "datasets_and_ratios": [{"embedded:world:300": 0.8}, {"embedded:arithmetic:100": 0.2}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("streamed")


@pytest.fixture
def unbroken(shared, train):
    if not (shared / "unbroken" / "finished.json").exists():
        train(shared / "unbroken", **STREAMED)
    return shared / "unbroken"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_on_a_stream_that_is_stopped_ends_with_the_same_weights(unbroken, train, tmp_path, workers):
    def again(out):
        return train(out, dataloader_num_workers=workers, **STREAMED)

    assert_a_stopped_run_ends_alike(unbroken, again, tmp_path / "stopped")


def test_without_an_end_the_length_of_the_run_must_be_set(train, tmp_path):
    done = train(tmp_path / "endless", check=False, total_sample_size=-1, max_steps=-1, **STREAMED)
    assert done.returncode == 1 and "streaming needs to know how long to train: set max_steps" in done.stderr


def test_fewer_rows_than_a_batch_are_refused(train, tmp_path):
    settings = {**STREAMED, "total_sample_size": 3, "num_train_epochs": 1, "max_steps": -1}
    done = train(tmp_path / "few", check=False, per_device_train_batch_size=4, **settings)
    assert done.returncode == 1 and "total_sample_size=3 in 1 epochs is less than one batch of 4 rows" in done.stderr
    assert not (tmp_path / "few" / "finished.json").exists()


def test_a_run_goes_through_the_stream_once_an_epoch(train, tmp_path):
    train(tmp_path / "epochs", max_steps=-1, num_train_epochs=2, eval_strategy="no", test_size=0, **STREAMED)
    assert (tmp_path / "epochs" / "checkpoint-24").is_dir()  # 96 rows, 8 a step, twice
