"""Loading a checkpoint: a model, or an adapter and the model that it belongs to."""

import json
from pathlib import Path

from transformers import AutoModelForCausalLM

from ..models import DogeForCausalLM, load_model
from ..processor.tokenizer import build_generation_config
from ..utils.errors import UserError
from ..utils.extras import needs_extra
from ..utils.logging import get_logger
from ..utils.model_folder import load_tokenizer
from ..utils.vocabulary import check_tokenizer_fits
from .detokenizer import Tokenizer
from .loading import is_exported


logger = get_logger(__name__)


ADAPTER_CONFIG = "adapter_config.json"


def open_checkpoint(name: str | Path, merge_lora: bool = False) -> tuple[DogeForCausalLM, Tokenizer | None]:
    """Load a model and its tokenizer; None if it has no tokenizer.

    Args:
        name: a folder or hub name.
        merge_lora: whether `name` is a folder with a LoRA adapter, to be merged into its base model.

    Raises:
        UserError: nothing can be loaded, the model is of another family, or `merge_lora` does not fit the folder.
    """
    folder = Path(name)
    if is_exported(folder):
        raise UserError(f"{name} is an export already; name the checkpoint that it was made from")
    has_adapter = (folder / ADAPTER_CONFIG).is_file()
    if has_adapter and not merge_lora:
        raise UserError(
            f"{name} holds a LoRA adapter alone; merge it into its base model: small-doge export {name} --merge-lora"
        )
    if merge_lora and not has_adapter:
        raise UserError(
            f"{name} has no {ADAPTER_CONFIG}; finished runs hold merged weights already: leave --merge-lora out"
        )
    if has_adapter:
        return _merge(folder)
    model = load_model(AutoModelForCausalLM, name)
    if not isinstance(model, DogeForCausalLM):
        raise UserError(f"{name} is a {model.config.model_type} model, not a Doge model")
    tokenizer = load_tokenizer(name)
    if tokenizer is not None:
        check_tokenizer_fits(tokenizer, model.config, str(name), model.generation_config)
        if folder.is_dir() and not (folder / "generation_config.json").is_file():
            model.generation_config = build_generation_config(tokenizer)
            logger.warning("%s has no generation_config.json: answers end where its tokenizer says", name)
    return model, tokenizer


def _merge(folder: Path) -> tuple[DogeForCausalLM, Tokenizer | None]:
    """Load the base model of a LoRA adapter, and merge the adapter into it."""
    with needs_extra("--merge-lora", "lora"):
        from peft import PeftModel
    base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{folder / ADAPTER_CONFIG} does not say which base_model_name_or_path the adapter belongs to")
    model, tokenizer = open_checkpoint(base)
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    own = load_tokenizer(folder)
    if own is not None:
        check_tokenizer_fits(own, model.config, base, model.generation_config)
    return merged, own or tokenizer
