"""The average of the last weights: which of them, and how much each counts."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from small_doge.trainer.averaging import WeightAverageCallback


def take_steps(callback, model, steps, max_steps):
    for step in range(1, steps + 1):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(float(step))
        callback.on_step_end(None, SimpleNamespace(global_step=step, max_steps=max_steps), None, model=model)


@pytest.mark.parametrize(
    ("kind", "expected"), [("uniform", 9.0), ("ema", (8 * 0.25 + 9 * 0.5 + 10) / (0.25 + 0.5 + 1))]
)
def test_only_the_last_share_counts_and_an_exponential_average_has_no_start_of_its_own(kind, expected):
    callback, model = WeightAverageCallback(kind, 0.3, 0.5), nn.Linear(2, 2)
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=10), None, model=model)
    take_steps(callback, model, 10, 10)
    assert callback.put_into(model)
    torch.testing.assert_close(model.weight.detach(), torch.full((2, 2), expected))


def begin(kind, step, max_steps, resume, decay=0.5):
    """Begin at a step a run of one weight, whose average is in the checkpoint folder `resume`."""
    callback, model = WeightAverageCallback(kind, 0.5, decay), nn.Linear(1, 1, bias=False)
    callback.resume = resume
    callback.on_train_begin(None, SimpleNamespace(global_step=step, max_steps=max_steps), None, model=model)
    return callback, model


def save(callback, folder, step):
    (folder / f"checkpoint-{step}").mkdir()
    callback.on_save(SimpleNamespace(should_save=True, output_dir=folder), SimpleNamespace(global_step=step), None)
    return folder / f"checkpoint-{step}"


def test_an_average_that_began_late_is_gone_on_with(tmp_path):
    callback, model = begin("uniform", 7, 10, None)  # the checkpoint of step 7 has none
    for step in (8, 9, 10):
        if step == 9:  # stopped and resumed
            callback, model = begin("uniform", 8, 10, save(callback, tmp_path, 8))
            assert callback.began == 8 and callback.average is not None
        model.weight.data.fill_(float(step))
        callback.on_step_end(None, SimpleNamespace(global_step=step), None, model=model)
    assert callback.put_into(model) and model.weight.item() == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("kind", "decay", "max_steps", "kept"),
    [("ema", 0.5, 10, True), ("ema", 0.9, 10, False), ("uniform", 0.5, 10, False), ("ema", 0.5, 16, False)],
)
def test_only_an_average_of_the_same_kind_and_steps_is_gone_on_with(tmp_path, kind, decay, max_steps, kept):
    callback, model = begin("ema", 0, 10, None)
    for step in range(1, 9):
        callback.on_step_end(None, SimpleNamespace(global_step=step), None, model=model)
    resumed, _ = begin(kind, 8, max_steps, save(callback, tmp_path, 8), decay)
    assert (resumed.average is not None) == kept


def test_what_is_not_trained_is_neither_kept_nor_changed():
    callback, model = WeightAverageCallback("uniform", 1.0, 0.5), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=2), None, model=model)
    take_steps(callback, model, 2, 2)
    assert set(callback.average) == {"1.weight", "1.bias"}
    assert callback.put_into(model)
    assert model[0].weight[0, 0] == 2.0 and model[1].weight[0, 0] == 1.5


def test_a_model_that_refers_to_what_can_not_be_copied_is_averaged():
    callback, model = WeightAverageCallback("ema", 1.0, 0.5), nn.Linear(2, 2)
    writer = (part for part in ())  # as a trainer's writer, which a hook of the trainer's holds
    model.register_forward_hook(lambda *args, writer=writer: None)
    model.writer = writer
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=1), None, model=model)
    take_steps(callback, model, 1, 1)
    assert callback.put_into(model)
