"""`small-doge report`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import CARD, check_output_path, is_own_file, record_files, write_json, write_text
from ..utils.logging import quiet_libraries
from ..utils.model_card import build_model_card, replace_figures
from ..utils.paths import LOSS_PICTURE, find_near_names, resolve_model
from . import options


console = Console(highlight=False)


def report_model(
    model: Annotated[
        str | None,
        typer.Argument(help="Checkpoint folder or exported folder; the demo's newest stage if not set."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Page to write; MODEL/report.html if not set.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Prompt to show answers to; repeat for several.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Use the chat template or not; depends on the model if not set."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure speed and generate samples again.")] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Rewrite the model card if it has no place for the figures.")
    ] = False,
    threads: options.Threads = None,
) -> None:
    """Write one page about a model: card, curves, scores, perplexity, speed, samples, and how to use it.

    Scores and perplexity are those that small-doge eval left in the folder or beside it. The figures in the model card
    are updated too.
    """
    require_extra("small-doge report", "data")
    from ..evaluation.model_report import REPORT, collect_report
    from ..evaluation.report_page import is_report, write_markdown, write_page
    from ..inference.export_cache import open_fast_engine

    quiet_libraries()
    name = resolve_model(model)
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"there is no folder {name}{find_near_names(folder)}; a report needs a model's folder")
    page = output or folder / "report.html"
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {page} must end in .html; .md is written beside it")
    check_output_path(page.parent)
    markdown = page.with_suffix(".md")
    is_card = markdown.resolve() == (folder / CARD).resolve()
    if is_card or (markdown.exists() and not is_report(markdown)):
        what = "the model card" if is_card else "no report, and would be lost"
        raise UserError(f"--output {page} writes {markdown} too, which is {what}; name another page with --output")
    with console.status("") as status:
        engine = open_fast_engine(name, 1, threads, tell=status.update)
        report = collect_report(folder, engine, prompt, chat, fresh, status.update)
    engine.close()
    write_json(folder / REPORT, report)
    write_text(page, write_page(report))
    write_text(markdown, write_markdown(report, _find_pictures(folder, page.parent, report)))
    own = [path.name for path in (folder / REPORT, page, markdown) if path.parent == folder]
    record_files(folder, *own)
    console.print(f"Written: {page}, {markdown.name}", soft_wrap=True)
    _update_card(folder, report, card)
    for part, command in report["missing"].items():
        console.print(f"Not there yet: {part}. To make it: {command}", style="yellow", soft_wrap=True)
    for file in report["outdated"]:
        console.print(f"Left out, since the weights changed: {file}", style="yellow", soft_wrap=True)


def _find_pictures(folder: Path, beside: Path, report: dict) -> dict[str, str]:
    """Return the pictures of sections, relative to the folder of the page."""
    found = {"Training": folder / LOSS_PICTURE}
    if report["perplexity"]:
        found["Perplexity"] = Path(report["perplexity"]["file"]).with_suffix(".png")
    return {title: Path(os.path.relpath(path, beside)).as_posix() for title, path in found.items() if path.is_file()}


def _update_card(folder: Path, report: dict, is_anew: bool) -> None:
    """Give the model card the figures of the report."""
    from ..evaluation.report_page import write_figures
    from ..trainer.lineage import find_lineage

    path, figures = folder / CARD, write_figures(report)
    old = path.read_text(encoding="utf-8") if path.is_file() else None
    new = None if old is None else replace_figures(old, figures)
    if new is None and (old is None or is_anew):
        picture = LOSS_PICTURE if (folder / LOSS_PICTURE).is_file() else None
        title, stage, settings = report["title"], report["stage"] or "Trained", report["settings"] or {}
        card = build_model_card(title, stage, {}, settings, report["path"], picture, **find_lineage(settings))
        new = replace_figures(card, figures)
    if new is None:
        console.print(f"{path} has no place for figures; write it anew with --card", style="yellow", soft_wrap=True)
        return
    was_ours = is_own_file(folder, CARD)
    write_text(path, new)
    if was_ours:
        record_files(folder, CARD)
    console.print(f"Figures updated: {path}", soft_wrap=True)
