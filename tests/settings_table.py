"""The table of the server's settings in `docs/webui.md`, made of the settings themselves.

`make links` writes it there.
"""

from dataclasses import MISSING, Field, fields
from pathlib import Path

from small_doge.cli.serve import SAMPLING
from small_doge.webui.settings import ENVIRONMENT, ServeSettings


GUIDE = Path(__file__).parents[1] / "docs" / "webui.md"
BEGIN, END = "<!-- The table is written by `make links`. -->\n", "<!-- End of the table. -->\n"
HEAD = "| Option | `serve.yaml` | Environment | Default | Meaning |\n|---|---|---|---|---|\n"


def make_table() -> str:
    """The table as Markdown."""
    return HEAD + "".join(map(_make_row, fields(ServeSettings)))


def put_table(text: str) -> str:
    """The guide with its table as it must be."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + make_table() + "\n" + END + rest.partition(END)[2]


def _make_row(field: Field) -> str:
    variables = [name for name, setting in ENVIRONMENT.items() if setting == field.name]
    cells = [
        _name_option(field),
        f"`{field.name}`",
        " ".join(f"`{name}`" for name in variables),
        _show_default(field),
        field.metadata["help"],
    ]
    return "| " + " | ".join(cells).replace("  ", " ") + " |\n"


def _name_option(field: Field) -> str:
    if field.name == "models":
        return "`MODEL`..."
    if field.name == "sampling":
        return ", ".join(f"`--{name.replace('_', '-')}`" for name in SAMPLING)
    return f"`{field.metadata.get('option', '--' + field.name.replace('_', '-'))}`"


def _show_default(field: Field) -> str:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if default in (None, (), []):
        return field.metadata.get("note", "").removesuffix(" if not set.").rstrip(".,") or "none"
    if field.name == "sampling":
        return "the likeliest token"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    GUIDE.write_text(put_table(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
