"""What MkDocs needs to make a site of documents that GitHub shows too.

A document links to files outside `docs/`: to code, recipes and results. On the site, pictures of results are copied and
all other such links lead to the repository. Two reference pages are written from the program itself while the site is
built, so that they can't fall behind it.
"""

import dataclasses
import inspect
import logging
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify


ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)((?:#[^)\s]*)?\))")
RESULTS = "benchmarks/results"
log = logging.getLogger("mkdocs.hooks.site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the anchors of headings as GitHub makes them, Chinese ones too."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures of the results."""
    for picture in sorted((ROOT / RESULTS).glob("*.png")):
        uri = f"{RESULTS}/{picture.name}"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of `docs/` to the repository, and write what the page has a mark for."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def move(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if target.startswith("docs/"):
            return match[0]
        if target.startswith(RESULTS) and target.endswith(".png"):
            return match[1] + posixpath.relpath(posixpath.join("docs", target), folder) + match[3]
        path = ROOT / target
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        kind = "tree" if path.is_dir() else "blob"
        return f"{match[1]}{config.repo_url.rstrip('/')}/{kind}/main/{target}{match[3]}"

    text = LINK.sub(move, markdown)
    for mark, write in MARKS.items():
        if mark in text:
            text = text.replace(mark, write())
    return text


@cache
def write_commands() -> str:
    """Describe each command of `small-doge`, its arguments and its options."""
    import typer.main

    from small_doge.cli.main import app

    return "\n".join(_describe_command(typer.main.get_command(app), "small-doge"))


def _describe_command(command: Any, name: str) -> Iterator[str]:
    subcommands = {key: sub for key, sub in getattr(command, "commands", {}).items() if not sub.hidden}
    for key, sub in subcommands.items():
        if key == getattr(command, "default_command", None):
            yield from _describe_command(sub, name)
        else:
            yield from _describe_command(sub, f"{name} {key}")
    if not subcommands:
        yield f"## {name}\n\n{inspect.cleandoc(command.help or '')}\n"
        rows = [_describe_parameter(p) for p in command.params if not getattr(p, "hidden", False)]
        yield _make_table(("Argument or option", "Default", "Meaning"), rows) if rows else ""


def _describe_parameter(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = "" if default is None or default is False or default in ([], ()) or callable(default) else f"`{default}`"
    return names, "required" if parameter.required else shown, getattr(parameter, "help", None) or ""


@cache
def write_settings() -> str:
    """Describe the settings of each stage; stages after pre-training list what they add."""
    from small_doge.trainer.recipe import known_settings
    from small_doge.trainer.stages import STAGES

    parts: list[str] = []
    told: dict[str, str] = {}
    for stage in STAGES.values():
        classes = stage.list_arguments()
        own = [base for cls in classes for base in cls.__mro__ if base.__module__.startswith("small_doge.")]
        names = {name for base in own for name in base.__annotations__}
        fields = {name: field for name, field in known_settings(classes).items() if name in names}
        rows = [
            (f"`{name}`", _show_default(field), str(field.metadata.get("help", "")))
            for name, field in fields.items()
            if told.get(name) != _show_default(field)
        ]
        told = told or {name: _show_default(field) for name, field in fields.items()}
        more = "All settings of pre-training, and:\n\n" if parts else ""
        table = _make_table(("Setting", "Default", "Meaning"), rows) if rows else "No further settings.\n"
        parts.append(f"## {stage.name}\n\n{stage.summary}\n\n{more}{table}")
    return "\n".join(parts)


def _show_default(field: dataclasses.Field) -> str:
    default = field.default_factory() if callable(field.default_factory) else field.default
    return f"`{default}`" if default not in (None, [], {}, "") else ""


def _make_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        f"| {' | '.join(' '.join(cell.replace('|', '&#124;').split()) for cell in line)} |\n" for line in lines
    )


MARKS = {"<!-- commands -->": write_commands, "<!-- settings -->": write_settings}
