"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table: headings, and rows of cells in which nothing ends a cell or a line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_clean(cell) for cell in line) + " |" for line in lines)


def _clean(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())
