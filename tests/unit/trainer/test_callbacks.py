import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from small_doge.trainer.callbacks import (
    EnoughRowsCallback,
    FiniteLossCallback,
    LogFileCallback,
    ProgressCallback,
    read_log,
)
from small_doge.trainer.pictures import plot_training
from small_doge.utils.errors import UserError


@pytest.fixture
def context(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    state = TrainerState(max_steps=10, num_input_tokens_seen=100)
    state.is_world_process_zero = True
    return args, state, TrainerControl()


def test_lines_show_loss_rate_speed_and_time_left(context, capsys):
    args, state, control = context
    progress = ProgressCallback()
    progress.on_train_begin(args, state, control)
    state.global_step, state.num_input_tokens_seen = 5, 1100
    progress.on_log(args, state, control, logs={"loss": 2.5, "learning_rate": 1e-3})
    shown = capsys.readouterr().err
    assert "step 5/10: loss 2.500, lr 1.0e-03" in shown and "tok/s" in shown and "left" in shown


def test_the_log_drops_what_came_after_the_checkpoint_that_a_run_goes_on_from(context, tmp_path):
    args, state, control = context
    progress = ProgressCallback()
    log = LogFileCallback(str(tmp_path), progress)
    for callback in (progress, log):
        callback.on_train_begin(args, state, control)
    for step in (1, 2, 3):
        state.global_step = step
        log.on_log(args, state, control, logs={"loss": float(step)})
    with open(log.path, "a") as file:
        file.write('{"torn')
    state.global_step = 2
    log.on_train_begin(args, state, control)
    assert [row["step"] for row in read_log(log.path)] == [1, 2]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_checkpoint(context, loss):
    args, state, control = context
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        FiniteLossCallback().on_log(args, state, control, logs={"loss": loss})
    FiniteLossCallback().on_log(args, state, control, logs={"loss": 1.0})


def test_a_run_without_a_single_batch_is_refused(context):
    with pytest.raises(UserError, match="fewer than one step takes.*per_device_train_batch_size=8"):
        EnoughRowsCallback().on_train_begin(*context, train_dataloader=[])
    EnoughRowsCallback().on_train_begin(*context, train_dataloader=[1])
    EnoughRowsCallback().on_train_begin(*context, train_dataloader=iter([]))  # a stream has no length


def test_the_picture_is_drawn(tmp_path):
    rows = [{"step": i, "loss": 5 - i / 10, "learning_rate": 1e-3} for i in range(20)] + [
        {"step": 10, "eval_loss": 4.2}
    ]
    plot_training(rows, tmp_path / "loss.png", "Test")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_progress_bar_is_never_cut_within_a_fact(width, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    logs = {"loss": 1.2345, "learning_rate": 8e-4, "rewards/accuracies": 0.5, "rewards/margins": 0.25, "reward": 0.5}
    progress, state = ProgressCallback(), TrainerState(max_steps=12_345, is_world_process_zero=True)
    progress.on_train_begin(None, state, None)
    progress.bar.ncols, progress.bar.dynamic_ncols = width, None
    state.global_step, state.num_input_tokens_seen = 1_234, 500_000
    progress.started -= 100
    progress.on_log(None, state, None, logs)
    shown = str(progress.bar)
    assert len(shown) <= width and shown.endswith("]") and " tok/s" in shown
    facts = shown.split(", ")[1:]
    assert all(fact.rstrip("]").split()[-1][-1].isalnum() for fact in facts)
    assert width < 120 or "margin 0.250" in shown
    progress.on_train_end(None, state, None)
