"""Loading that refuses what does not fit, with a list of it."""

from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedModel


Model = TypeVar("Model", bound=PreTrainedModel)
SHOWN = 8


def load_model(model_class: type[Model], path: str | Path, **kwargs: object) -> Model:
    """`model_class.from_pretrained` from safetensors only, with every difference an error.

    Args:
        model_class: an Auto class or a model class.
        path: local folder or hub name.
        kwargs: passed on.

    Raises:
        ValueError: missing, unexpected or wrongly shaped weights, listed.
    """
    model, report = model_class.from_pretrained(
        str(path), output_loading_info=True, use_safetensors=True, ignore_mismatched_sizes=True, **kwargs
    )
    check_loading_report(str(path), report)
    return model


def check_loading_report(path: str, report: dict) -> None:
    """Raise a `ValueError` that lists what `transformers` found wrong in its loading report."""
    lines = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        entries = sorted(map(_describe, report.get(kind) or []))
        if entries:
            more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
            lines.append(f"  {kind.replace('_', ' ')}: {', '.join(entries[:SHOWN])}{more}")
    if report.get("error_msgs"):
        lines.append(f"  {report['error_msgs']}")
    if lines:
        raise ValueError(f"the weights in {path} do not fit the model its config.json describes:\n" + "\n".join(lines))


def _describe(entry: str | tuple) -> str:
    if isinstance(entry, str):
        return entry
    name, found, wanted = entry
    return f"{name} (file {tuple(found)}, model {tuple(wanted)})"
