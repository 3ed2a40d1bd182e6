"""Comparisons as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.markdown import write_table
from .comparison import Comparison, ScoredModel, count_weight_bytes
from .paired import PairedTest


NOTE = (
    "Scores and differences are in points of a hundred, on the same items. The interval is of 95%, by drawing the items again "
    "(bootstrap); p is McNemar's exact test, over the items that one model alone has right. It is left out where items weigh "
    "differently, as in an average of unequal tasks or groups. A difference is told where the interval leaves out 0 and p, "
    "where there is one, lies below 0.05. The number of items that are missing is for a difference of this size, to be "
    "found in 80 of 100 cases."
)


def name_models(models: Sequence[ScoredModel]) -> list[str]:
    """Name models by their folders, or by their whole paths where these are alike."""
    short = [Path(model.name).name for model in models]
    return short if len(set(short)) == len(short) else [model.name for model in models]


def list_cells(names: tuple[str, str], comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of the table of two models."""
    head = ["task", "items", *names, "difference", "95% interval", "right alone", "p", "what it says"]
    rows = [
        [
            name,
            f"{test.n:,}",
            f"{100 * test.first:.1f}",
            f"{100 * test.second:.1f}",
            f"{100 * test.difference:+.1f}",
            f"{100 * test.low:+.1f} to {100 * test.high:+.1f}",
            "-" if test.only_first is None else f"{test.only_first} : {test.only_second}",
            "-" if test.p_value is None else f"{test.p_value:.3f}" if test.p_value >= 0.001 else f"{test.p_value:.1e}",
            judge(test, names),
        ]
        for name, test in comparison.rows.items()
    ]
    return head, rows


def judge(test: PairedTest, names: tuple[str, str]) -> str:
    """Say in words what a test says."""
    if test.is_sure:
        return f"{names[test.difference > 0]} is better"
    if test.low == test.high == 0:
        return "right and wrong on the same items"
    if test.missing is None:
        return "equal on these items"
    return (
        f"can't tell: {_round(test.missing)} more items needed"
        if test.missing
        else "can't tell: a few more items needed"
    )


def _round(number: int) -> str:
    """Round a number to two digits, as far as it is known."""
    digits = max(0, len(str(number)) - 2)
    return f"about {round(number, -digits):,}"


def list_sizes(first: ScoredModel, comparisons: Sequence[Comparison]) -> list[str]:
    """Say how large the files of weights are, where they are here."""
    sizes = [count_weight_bytes(model.name) for model in (first, *(c.model for c in comparisons))]
    if None in sizes:
        return []
    names = name_models([first, *(c.model for c in comparisons)])
    told = (f"{name} {size / 1e6:.1f} MB ({size / sizes[0]:.0%})" for name, size in zip(names, sizes, strict=True))
    return [f"Weights: {', '.join(told)}."]


def write_markdown(first: ScoredModel, comparisons: Sequence[Comparison]) -> str:
    """Write all comparisons in Markdown."""
    own, *others = name_models([first, *(c.model for c in comparisons)])
    lines = [f"# {own} against {', '.join(others)}, {first.result['suite']} suite", ""]
    for name, comparison in zip(others, comparisons, strict=True):
        head, rows = list_cells((own, name), comparison)
        lines += [write_table(head, rows), "", *(f"- {note}" for note in comparison.notes), ""]
    facts: list[Any] = [*list_sizes(first, comparisons), NOTE]
    return "\n".join([*lines, *(f"- {fact}" for fact in facts), ""])
