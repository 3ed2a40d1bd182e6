"""Pictures of a run."""

from pathlib import Path
from typing import Any

from ..utils.plots import saved_figure


# What says more than the loss where answers are compared, by the label of its axis.
COMPARED = {
    "share of pairs": ("rewards/accuracies",),
    "reward margin": ("rewards/margins",),
    "reward": ("reward", "rewards/accuracy_reward/mean", "rewards/format_reward/mean"),
    "share of groups": ("groups/equal_rewards", "groups/cut_off"),
}


def plot_training(rows: list[dict], path: str | Path, title: str) -> None:
    """Plot loss (training and held out), learning rate, and what the stage compares, by step, as a PNG.

    Args:
        rows: of `training_log.jsonl`.
        path: of the picture.
        title: above it.
    """
    with saved_figure(path, 8, 5 + 2 * len(find_compared(rows))) as figure:
        draw_training(figure, rows)
        figure.axes[0].set_title(title)


def find_compared(rows: list[dict]) -> dict[str, tuple[str, ...]]:
    """Find what the rows of a log compare, by the label of its axis."""
    train = [row for row in rows if "loss" in row]
    return {
        label: names
        for label, names in COMPARED.items()
        if any(row.get(name) is not None for row in train for name in names)
    }


def draw_training(figure: Any, rows: list[dict]) -> None:
    """Draw the curves of a run into a figure."""
    train = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "eval_loss" in row]
    compared = find_compared(rows)
    loss_axes, *more, rate_axes = figure.subplots(
        2 + len(compared), 1, sharex=True, height_ratios=[3, *[2] * len(compared), 1]
    )
    _plot(loss_axes, train, "loss", "training")
    _plot(loss_axes, held_out, "eval_loss", "held out", style="o-")
    loss_axes.set_ylabel("loss per token (nats)" if not compared else "loss")
    for axes, (label, names) in zip(more, compared.items(), strict=True):
        for name in names:
            _plot(axes, train, name, name.removeprefix("rewards/").removesuffix("/mean").replace("_", " "))
            _plot(axes, held_out, f"eval_{name}", f"{name} held out", style="o")
        axes.set_ylabel(label)
    rate_axes.plot([r["step"] for r in train], [r.get("learning_rate", 0.0) for r in train], color="tab:green", lw=1.2)
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("step")
    for axes in (loss_axes, *more, rate_axes):
        axes.grid(alpha=0.3)
        if axes is not rate_axes:
            axes.legend(fontsize="small")


def _plot(axes: Any, rows: list[dict], name: str, label: str, style: str = "-") -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), style, ms=4, lw=1.2, label=label)
