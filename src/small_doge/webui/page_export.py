"""The page as a static folder that any file server can serve: it runs exported models in the browser, with no server."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..inference.export_cache import NotExportableError, export_once
from ..inference.loading import GRAPH, RUNTIME, is_exported, read_runtime
from ..utils.errors import UserError
from ..utils.files import CARD, check_output, whole_folder, write_json, write_text
from ..utils.logging import get_logger
from .model_files import describe_files


logger = get_logger(__name__)

MADE_BY = "small-doge webui export"
STATIC = Path(__file__).with_name("static")
NEEDED = (RUNTIME, GRAPH, "tokenizer.json", "tokenizer_config.json")
FURTHER = ("chat_template.jinja", "config.json", CARD)
# As the server's, but for what only a header can say.
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'"
)
README = """# {names}: a page to chat in

This folder holds a web page and {what}. The page runs the model in the browser: no server computes anything, and nothing
that you type leaves your machine. Browsers open such a page from a file server alone, which may be any:

    python -m http.server 8000 --bind 127.0.0.1 --directory {folder}

Then open http://127.0.0.1:8000/. For a phone on the same network, leave `--bind 127.0.0.1` out, and open the computer's
address on it. To publish the page, copy the folder to any host of static files, also into a folder there.

A server that sends the headers `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`
over HTTPS lets the browser compute on several threads.

`static/vendor/licenses` holds the licences of the libraries.
"""


def export_page(
    models: Sequence[str],
    output: str | Path,
    quantize: str | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = logger.info,
) -> dict[str, int]:
    """Write the page and models as a static folder, as a whole or not at all.

    Args:
        models: exported folders, or checkpoints, which are exported first.
        output: folder to write.
        quantize: weights of the checkpoints' exports: none, int8 or int4; none if not given.
        overwrite: write into a folder that holds something else; files of other names are kept.
        tell: is told what is exported, and where it lies.

    Returns:
        The bytes that a browser fetches of each model, by its name on the page.

    Raises:
        UserError: there is no such model, it can't run in the browser, or the folder holds something else.
    """
    if not models:
        raise UserError("name a model to put on the page")
    output = Path(output)
    check_output(output, MADE_BY, overwrite, models)
    folders = [_find_export(name, quantize, tell) for name in models]
    names = _name_all(models)
    entries, sizes = [], {}
    with whole_folder(output, MADE_BY, overwrite) as folder:
        _copy_page(folder)
        for name, source in zip(names, folders, strict=True):
            sizes[name] = _copy_model(source, folder / "models" / name)
            entries.append({"id": name, "path": f"models/{name}", **describe_files(source)})
        write_json(folder / "config.json", {"engine": "browser", "models": entries})
        what = "one exported model" if len(names) == 1 else f"{len(names)} exported models"
        write_text(folder / CARD, README.format(names=", ".join(names), what=what, folder=output))
    return sizes


def _find_export(name: str, quantize: str | None, tell: Callable[[str], None]) -> Path:
    """Find the exported folder of a model; a checkpoint is exported first, unless that was done before."""
    if not is_exported(name):
        try:
            folder = export_once(name, quantize or "none", tell)
        except NotExportableError as error:
            raise UserError(f"{name} can't run in the browser: {error}") from error
    else:
        folder = Path(name)
    settings = read_runtime(folder)
    if quantize is not None and settings["quantize"] != quantize:
        raise UserError(
            f"{name} is an export with quantize={settings['quantize']} already; leave --quantize out, or name the checkpoint"
        )
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{name} has no {missing[0]}, without which a page can't show text; export it with its tokenizer"
        )
    return folder


def _name_all(models: Sequence[str]) -> list[str]:
    """Choose a name for each model, which is a folder's too; further ones of a name get a number."""
    names: list[str] = []
    for model in models:
        path = Path(model)
        base = re.sub(r"[^\w.-]+", "-", path.resolve().name if path.exists() else path.name).strip(".-") or "model"
        name, number = base, 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


def _copy_page(folder: Path) -> None:
    """Copy the page into a folder, with a Content-Security-Policy, which file servers do not send."""
    shutil.copytree(STATIC, folder / "static", ignore=shutil.ignore_patterns("index.html", "docs.*", "__pycache__"))
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    head = '<meta charset="utf-8" />'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
    write_text(folder / "index.html", page.replace(head, f"{head}\n    {policy}", 1))


def _copy_model(source: Path, target: Path) -> int:
    """Copy what the page reads of an exported folder; return its bytes."""
    target.mkdir(parents=True)
    for name in (*NEEDED, *FURTHER):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return sum((target / name).stat().st_size for name in NEEDED)


def describe_size(folder: Path) -> dict[str, int]:
    """Count the files and bytes of a written folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
