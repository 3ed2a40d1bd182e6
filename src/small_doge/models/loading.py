"""Loads models, and refuses weights that do not fit with a list of them."""

from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.model_folder import check_model_folder


SHOWN = 8


def load_model(model_class: Any, path: str | Path, **kwargs: Any) -> Any:
    """Load a model by `model_class.from_pretrained`, from safetensors only and with every difference an error.

    Args:
        model_class: an Auto class or a model class.
        path: local folder or hub name.
        kwargs: passed on.

    Returns:
        The model.

    Raises:
        UserError: no model there, a torn file, or missing, unexpected or wrongly shaped weights, listed.
    """
    check_model_folder(path)
    try:
        model, report = model_class.from_pretrained(
            str(path), output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, **kwargs
        )
    except OSError as error:
        where = "" if Path(path).is_dir() else "there is no such folder here, and on the hub: "
        raise UserError(f"no model could be loaded from {path}: {where}{str(error).splitlines()[0]}") from error
    check_loading_report(str(path), report)
    return model


def check_loading_report(path: str, report: dict) -> None:
    """Raise a `UserError` that lists what `transformers` found wrong in its loading report."""
    lines = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        entries = sorted(map(_describe, report.get(kind) or []))
        if entries:
            more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
            lines.append(f"  {kind.replace('_', ' ')}: {', '.join(entries[:SHOWN])}{more}")
    if report.get("error_msgs"):
        lines.append(f"  {report['error_msgs']}")
    if lines:
        raise UserError(f"the weights in {path} do not fit the model its config.json describes:\n" + "\n".join(lines))


def _describe(entry: str | tuple) -> str:
    if isinstance(entry, str):
        return entry
    name, found, wanted = entry
    return f"{name} (file {tuple(found)}, model {tuple(wanted)})"
