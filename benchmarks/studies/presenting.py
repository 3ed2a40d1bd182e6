"""Tables with spread, and pictures, of the rows of a study."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from small_doge.utils.markdown import write_table
from small_doge.utils.plots import saved_figure


def group_rows(rows: list[dict], by: Sequence[str], value: str) -> dict[tuple, list[float]]:
    """The values of the seeds for each combination of settings, in the order in which they come."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        if row.get(value) is not None:
            groups.setdefault(tuple(row[name] for name in by), []).append(row[value])
    return groups


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation of the seeds."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def summary_table(rows: list[dict], by: Sequence[str], values: dict[str, int]) -> str:
    """A Markdown table of mean ± standard deviation over seeds.

    Args:
        by: settings, a column each.
        values: results, a column each, with the digits to show.
    """
    groups = {name: group_rows(rows, by, name) for name in values}
    keys = list(dict.fromkeys(tuple(row[name] for name in by) for row in rows))
    body = [
        [*map(str, key), *(spread(groups[n].get(key, []), digits) for n, digits in values.items())] for key in keys
    ]
    return write_table([*by, *values], body)


def draw_lines(
    path: Path,
    panels: dict[str, dict[str, dict[float, Sequence[float]]]],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    mark: float | None = None,
) -> None:
    """Draw panels {title: {line: {x: values of the seeds}}}: the mean, and a band from the least to the largest.

    `mark` draws a vertical line there.
    """
    with saved_figure(path, 4.5 * len(panels) + 0.5, 3.6) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        named: set[frozenset[str]] = set()
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for name, points in lines.items():
                x = sorted(points)
                axis.plot(
                    x, [statistics.fmean(points[at]) for at in x], marker="o" if len(x) < 12 else None, label=name
                )
                axis.fill_between(x, [min(points[at]) for at in x], [max(points[at]) for at in x], alpha=0.2)
            axis.set(title=title, xlabel=x_label, ylabel=y_label)
            if log_x:
                axis.set_xscale("log", base=2)
            if log_y:
                axis.set_yscale("log")
            if y_range:
                axis.set_ylim(*y_range)
            if mark is not None:
                axis.axvline(mark, color="grey", linestyle=":")
            axis.grid(alpha=0.3)
            if frozenset(lines) not in named:  # a legend wherever the lines are others than in the panels before
                axis.legend(fontsize="small")
                named.add(frozenset(lines))
