"""One way to write messages."""

import logging
import os
import sys
import warnings


def get_logger(name: str) -> logging.Logger:
    """Return a logger below `small_doge`, which writes to standard error."""
    root = logging.getLogger("small_doge")
    if not root.handlers:
        handler = logging.StreamHandler(_Stderr())
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False
    return logging.getLogger(name)


class _Stderr:
    """The standard error of the moment, which tests and progress bars replace."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def quiet_libraries() -> None:
    """Turn off the progress bars of libraries that would tear ours; called by commands, never at import."""
    import transformers

    # What TRL calls by an older name is nothing that a user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
    transformers.utils.logging.disable_progress_bar()
    if not sys.stderr.isatty():
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # read when it is loaded, which most commands don't
        if "datasets" in sys.modules:
            sys.modules["datasets"].disable_progress_bars()
