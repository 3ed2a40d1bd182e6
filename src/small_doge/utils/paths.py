"""Where the shipped recipes are, and where the demo leaves its stages."""

from difflib import get_close_matches
from pathlib import Path

from .errors import UserError


DEMO_DIR = Path("runs/demo")
FINISHED = "finished.json"
LOSS_PICTURE = "loss.png"


def find_tiny_recipes() -> Path:
    """Find the folder `recipes/tiny`: in the wheel as package data, in a clone at its root."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "recipes" / "tiny", package.parents[1] / "recipes" / "tiny"):
        if folder.is_dir():
            return folder
    raise UserError("recipes/tiny is missing from this installation; install the package again")


def looks_like_path(name: str) -> bool:
    """Tell whether a name that is not there can only have meant a local path, not `owner/name` of the hub."""
    parts = Path(name).parts
    if name.startswith(("/", ".", "~")) or len(parts) > 2 or name.endswith("/"):
        return True
    return len(parts) == 2 and Path(parts[0]).is_dir() and bool(find_near_names(Path(name)))


def find_near_names(path: Path) -> str:
    """Name what stands near a path that is not there, to end a message with; "" if nothing does."""
    parent = path.parent
    if not parent.is_dir():
        nearest = next((folder for folder in path.parents if folder.is_dir()), Path())
        return f" (in {nearest} there is no {path.relative_to(nearest).parts[0]})"
    near = get_close_matches(path.name, [entry.name for entry in parent.iterdir()], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(str(parent / name) for name in near)}?" if near else ""


def resolve_model(model: str | None, demo_dir: Path = DEMO_DIR) -> str:
    """Return the model that is named, or else the newest finished stage of the demo.

    Raises:
        UserError: none is named and the demo has not run.
    """
    if model is not None:
        return model
    finished = sorted(demo_dir.glob(f"*/{FINISHED}"), key=lambda path: path.stat().st_mtime)
    if not finished:
        raise UserError(f"name a MODEL, or make one first with: small-doge demo (nothing finished in {demo_dir})")
    return str(finished[-1].parent)
