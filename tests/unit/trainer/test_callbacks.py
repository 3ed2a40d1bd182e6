import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from small_doge.trainer.callbacks import FiniteLossCallback, LogFileCallback, ProgressCallback, read_log
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


def test_the_picture_is_drawn(tmp_path):
    rows = [{"step": i, "loss": 5 - i / 10, "learning_rate": 1e-3} for i in range(20)] + [
        {"step": 10, "eval_loss": 4.2}
    ]
    plot_training(rows, tmp_path / "loss.png", "Test")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
