import pytest

from small_doge.trainer.doge.dpo import judge_margins


@pytest.mark.parametrize(
    ("margins", "accuracies", "message"),
    [
        ([0.001, -0.004], [0.5, 0.5], "has not moved"),
        ([-0.5, -0.6], [0.2, 0.2], "prefers rejected answers"),
        ([8.0, 9.0], [1.0, 1.0], "has saturated"),
        ([0.5, 0.8], [0.8, 0.9], None),
    ],
)
def test_margins_that_teach_nothing_are_told(margins, accuracies, message):
    found = judge_margins(margins, accuracies)
    assert found is None if message is None else message in found
