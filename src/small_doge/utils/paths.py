"""Where the shipped recipes are, and where the demo leaves its stages."""

from pathlib import Path

from .errors import UserError


DEMO_DIR = Path("runs/demo")
FINISHED = "finished.json"


def find_tiny_recipes() -> Path:
    """The folder `recipes/tiny`: in the wheel as package data, in a clone at its root."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "recipes" / "tiny", package.parents[1] / "recipes" / "tiny"):
        if folder.is_dir():
            return folder
    raise UserError("recipes/tiny is missing from this installation; install the package again")


def resolve_model(model: str | None, demo_dir: Path = DEMO_DIR) -> str:
    """The model that is named, or else the newest finished stage of the demo.

    Raises:
        UserError: none is named and the demo has not run.
    """
    if model is not None:
        return model
    finished = sorted(demo_dir.glob(f"*/{FINISHED}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"name a MODEL, or make one first with: small-doge demo (nothing finished in {demo_dir})")
    return str(finished[-1].parent)
