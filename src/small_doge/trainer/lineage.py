"""What a recipe says of the data and the model that a run begins with, by their names on the hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..processor.catalog import CATALOG


def find_lineage(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the names that a model card gives to the hub, as the arguments of `build_model_card`; files of one's own have none."""
    names = [name for share in settings.get("datasets_and_ratios") or [] for name in share]
    known = [CATALOG[name].hub_name if name in CATALOG else name.partition(":")[0] for name in names]
    base = settings.get("model_name_or_path") or settings.get("continue_from")
    return {
        "datasets": [name for name in dict.fromkeys(known) if _is_on_hub(name)],
        "base_model": base if base and _is_on_hub(base) else None,
    }


def _is_on_hub(name: str) -> bool:
    """Tell whether a name can only be `owner/name` of the hub."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None and not Path(name).parent.exists()
