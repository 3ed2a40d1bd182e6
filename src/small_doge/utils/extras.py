"""Packages that the base install leaves out, and the extra that brings each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from .errors import UserError


# What an extra of pyproject.toml brings, by the names that are imported; those of the extras that it includes are in
# INCLUDED. The first extra that lists a name is the smallest.
EXTRAS = {
    "plots": ("matplotlib",),
    "data": ("boto3", "botocore", "datasets", "dill", "fsspec", "pyarrow", "xxhash"),
    "train": ("accelerate", "antlr4", "math_verify", "tensorboard", "trl"),
    "export": ("llguidance", "onnx", "onnxruntime"),
    "lora": ("peft",),
    "eval": ("accelerate", "antlr4", "immutabledict", "langdetect", "lm_eval", "math_verify", "nltk", "punkt"),
    "serve": ("fastapi", "prometheus_client", "sqlalchemy", "starlette", "uvicorn"),
    "scale": ("datatrove", "orjson", "ray", "spacy"),
    "trackers": ("trackio", "wandb"),
    "cuda": ("liger_kernel",),
    "deepspeed": ("deepspeed",),
}
INCLUDED = {
    "data": ("plots",),
    "train": ("data",),
    "eval": ("data", "export"),
    "serve": ("export",),
    "scale": ("data",),
}


class MissingPackageError(UserError, ImportError):
    """A package of an extra that is not installed; also an `ImportError`, for code that looks for one."""


def find_extra(package: str) -> str | None:
    """Return the extra that brings a package, by the name that is imported."""
    top = package.partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if top in packages), None)


def list_packages(extra: str) -> list[str]:
    """List all that an extra brings, with what it includes."""
    included = [package for other in INCLUDED.get(extra, ()) for package in list_packages(other)]
    return sorted({*EXTRAS[extra], *included})


def require_extra(what: str, extra: str) -> None:
    """Raise a `MissingPackageError` if a package of an extra is not installed.

    Nothing is imported, so that a command can ask before it starts for what it would import at its end.

    Args:
        what: needs the extra, as the beginning of the message.
        extra: whose packages are looked for.
    """
    missing = [package for package in list_packages(extra) if find_spec(package) is None]
    if missing:
        raise _describe_missing(what, missing, extra)


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
    return _describe_missing(what, [package], extra or found)


def _describe_missing(what: str, packages: Sequence[str], extra: str) -> MissingPackageError:
    verb = "is" if len(packages) == 1 else "are"
    named = " and ".join(filter(None, (", ".join(packages[:-1]), packages[-1])))
    return MissingPackageError(
        f"{what} needs {named}, which {verb} not installed; run: pip install 'small-doge[{extra}]'"
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
