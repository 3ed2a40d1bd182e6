"""Names that the published guides have for what is called otherwise here.

Tables and small functions on names alone, which import nothing but `utils`: every layer may use them.
"""

from pathlib import Path
from typing import Any

from ..utils.errors import UserError
from ..utils.logging import get_logger


logger = get_logger(__name__)

# Settings of recipes.
SETTINGS = {
    "warmup_ratio": "warmup_steps",
    "decay_ratio": "decay_steps",
    "min_lr_rate": "min_lr_ratio",
    "max_train_steps": "max_steps",
    "accumulate_steps": "gradient_accumulation_steps",
    "max_seq_length": "max_length",
    "no_cuda": "use_cpu",
    "gradient_checkpointing": "activation_checkpointing",
}
SCHEDULES = {"wsd": "warmup_stable_decay", "wsd_scheduler": "warmup_stable_decay"}
# Columns of the guides' tables of models, with their misspellings.
MODEL_FIELDS = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "n_heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "n_experts": "num_experts",
    "n_exprets": "num_experts",
    "n_expert_pre_head": "num_experts_per_tok",
    "n_expert_per_head": "num_experts_per_tok",
}
EXPERT_HEADS = "n_expert_heads"
RECIPE_ENDING = ("-R1", "-Reason")
# One guide misspells the organisation; on the hub that name could belong to anybody.
ORGANISATION = ("SamllDoge/", "SmallDoge/")


def tell_name(given: str, name: str) -> None:
    """Tell under which name a setting is known here."""
    logger.info("%s is called %s here: using it as such", given, name)


def rename_model_fields(given: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields of a model that the guides call otherwise, with a notice each.

    Raises:
        UserError: retrieval heads, which the experts don't have, or a field under two names.
    """
    renamed: dict[str, Any] = {}
    for old, value in given.items():
        if old == EXPERT_HEADS:
            _check_expert_heads(value)
            continue
        name = MODEL_FIELDS.get(old, old)
        if name != old:
            tell_name(old, name)
        if name in renamed:
            raise UserError(f"{name} is set twice, once as {old}={value!r}")
        renamed[name] = value
    return renamed


def _check_expert_heads(value: Any) -> None:
    if value not in (None, 1):
        raise UserError(
            f"{EXPERT_HEADS}={value!r}: a layer retrieves its experts with one router, not with several heads. Leave it out, "
            "and set num_experts_per_tok to all experts that a token uses; small_doge.models.modules.CDMoE has heads"
        )
    logger.info("%s=%r is not needed: a layer retrieves its experts with one router", EXPERT_HEADS, value)


def rename_recipe(path: Path) -> Path:
    """Return the recipe that a path of the guides means, with a notice if it is called otherwise."""
    renamed = Path(str(path).replace(*RECIPE_ENDING))
    if path.is_file() or not renamed.is_file():
        return path
    tell_name(str(path), str(renamed))
    return renamed


def correct_hub_name(name: str) -> str:
    """Correct the organisation that one guide misspells, with a notice."""
    wrong, right = ORGANISATION
    if not name.startswith(wrong):
        return name
    corrected = right + name.removeprefix(wrong)
    logger.warning("%s is a misspelling of one of the guides: using %s", name, corrected)
    return corrected
