"""Pictures of a run."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_training(rows: list[dict], path: str | Path, title: str) -> None:
    """Loss (training and held out) and learning rate by step, as a PNG.

    Args:
        rows: of `training_log.jsonl`.
        path: of the picture.
        title: above it.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    train = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "eval_loss" in row]
    loss_axes.plot([r["step"] for r in train], [r["loss"] for r in train], lw=1.2, label="training")
    if held_out:
        loss_axes.plot([r["step"] for r in held_out], [r["eval_loss"] for r in held_out], "o-", ms=4, label="held out")
    loss_axes.set_ylabel("loss per token (nats)")
    loss_axes.set_title(title)
    loss_axes.grid(alpha=0.3)
    loss_axes.legend()
    rate_axes.plot([r["step"] for r in train], [r.get("learning_rate", 0.0) for r in train], color="tab:green", lw=1.2)
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("step")
    rate_axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
