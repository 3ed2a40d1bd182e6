"""Links from documents to lines of the code: [name](../src/small_doge/module.py#L12).

`make links` moves them to where the named functions and classes stand now.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([\w.]+)\]\(([^)#\s]+\.py)#L(\d+)\)")


def find_line(path: Path, name: str) -> int:
    """The line of a function, class, method (`Class.method`) or module-level name.

    Raises:
        LookupError: it is not there.
    """
    found: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        found = next((node for node in getattr(found, "body", []) if part in names_of(node)), None)
        if found is None:
            raise LookupError(f"there is no {name} in {path}")
    return found.lineno


def names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    for target in getattr(node, "targets", [getattr(node, "target", None)]):
        if isinstance(target, ast.Name):
            yield target.id


def move_links(document: Path) -> str:
    """The text of a document with its links at their present lines."""

    def move(match: re.Match) -> str:
        name, path, _ = match.groups()
        return f"[{name}]({path}#L{find_line(document.parent / path, name)})"

    return LINK.sub(move, document.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").glob("*.md")):
        page.write_text(move_links(page), encoding="utf-8")
