"""Tables that fit the terminal: nothing in them is ever cut."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text


# Characters that the frame takes for each column; one more closes the table.
FRAME = 3


def show_table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    prose: Sequence[str] = (),
) -> None:
    """Print a table; one that is too wide is turned on its side or, if that is too wide as well, written as a list.

    Args:
        console: whose width counts.
        columns: their headings.
        rows: of cells, one for each column.
        title: above the table.
        prose: columns whose cells may go on in a further line.
    """
    console.print(fit_table(columns, [list(row) for row in rows], console.width, title, prose))


def fit_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, title: str | None, prose: Sequence[str]
) -> RenderableType:
    """Return the first form that fits into a number of characters."""
    if sum(_measure(columns, rows, prose)) + FRAME * len(columns) < width:
        return _build(columns, rows, title, prose)
    if not prose and rows:
        turned = [columns[0], *(row[0] for row in rows)], list(zip(*(row[1:] for row in rows), strict=True))
        lines = [[name, *cells] for name, cells in zip(columns[1:], turned[1], strict=True)]
        if sum(_measure(turned[0], lines, ())) + FRAME * len(turned[0]) < width:
            return _build(turned[0], lines, title, ())
    shown = [Text(title, style="italic")] if title else []
    for row in rows:
        shown.append(Text(row[0], style="bold"))
        shown += [Text(f"  {name.lower()}: {cell}") for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
    return Group(*shown)


def _build(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None, prose: Sequence[str]) -> Table:
    table = Table(title=title)
    for name, width in zip(columns, _measure(columns, rows, prose), strict=True):
        heading = Text("\n".join(name.split()))
        table.add_column(heading, min_width=width, no_wrap=name not in prose, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _measure(columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Sequence[str]) -> list[int]:
    """Count the characters that each column needs at least. Headings part at spaces, and cells do where they are prose."""
    return [
        max(
            (
                *map(cell_len, name.split()),
                *(cell_len(part) for row in rows for part in (row[place].split() if name in prose else [row[place]])),
            ),
            default=0,
        )
        for place, name in enumerate(columns)
    ]
