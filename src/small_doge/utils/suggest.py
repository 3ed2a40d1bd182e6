"""Messages for names that don't exist."""

import difflib
from collections.abc import Iterable


def unknown_name_message(kind: str, name: str, known: Iterable[str], limit: int = 12) -> str:
    """Say `unknown <kind> 'x'; did you mean 'y'? Known: ...`, with the near miss first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names[:limit])}{more}"
