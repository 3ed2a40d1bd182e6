"""Whether a tokenizer is the one that a model was trained with."""

import hashlib
from typing import Any

from .errors import UserError
from .logging import get_logger


logger = get_logger(__name__)

NAMES = ("bos_token_id", "eos_token_id")


def hash_vocabulary(tokenizer: Any, size: int | None = None) -> str:
    """Hash which text each token id stands for, as `SIZE-HASH`.

    Args:
        tokenizer: of a model.
        size: hash the ids below it alone, so that a tokenizer with tokens added at its end has the hash of the one
            before; all of them if None.
    """
    entries = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    size = entries[-1][0] + 1 if size is None else size
    digest = hashlib.sha256()
    for number, token in entries:
        if number < size:
            digest.update(f"{number} {token}\n".encode("utf-8", "surrogatepass"))
    return f"{size}-{digest.hexdigest()[:16]}"


def check_tokenizer_fits(tokenizer: Any, config: Any, name: str = "the model", generation_config: Any = None) -> None:
    """Refuse a tokenizer whose tokens a model has not learnt; warn where nothing is recorded and special tokens differ.

    Args:
        tokenizer: to be used with the model.
        config: of the model. If its `vocabulary_hash` is set, the tokens of the training must have the same ids.
        name: of the model, for messages.
        generation_config: of the model, which may name more tokens that end a text.

    Raises:
        UserError: it has tokens without an embedding, or other tokens than the model was trained with.
    """
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer):,} entries, and the vocab_size of {name} is {config.vocab_size:,}: use the "
            "tokenizer that belongs to the model, or set model_overrides.vocab_size of a new one"
        )
    recorded = getattr(config, "vocabulary_hash", None)
    if recorded is None:
        _warn_of_special_tokens(tokenizer, config, name, generation_config)
    elif hash_vocabulary(tokenizer, int(recorded.partition("-")[0])) != recorded:
        raise UserError(
            f"the tokenizer is not the one that {name} was trained with: the same ids stand for other tokens. Put the "
            "model's own tokenizer files beside its weights, or train new weights with this one"
        )


def _warn_of_special_tokens(tokenizer: Any, config: Any, name: str, generation_config: Any) -> None:
    """Warn if begin or end tokens of a model are others than the tokenizer's; what one of them leaves open does not count."""
    for field in NAMES:
        own = getattr(tokenizer, field)
        known = {*_list_ids(config, field), *_list_ids(generation_config, field)}
        if own is not None and known and own not in known:
            logger.warning(
                "the tokenizer may be another model's: its %s is %s, and %s has %s",
                field,
                own,
                name,
                ", ".join(map(str, sorted(known))),
            )


def _list_ids(settings: Any, field: str) -> list[int]:
    """List the ids that settings name, which may be one, several or none."""
    found = getattr(settings, field, None)
    return found if isinstance(found, list) else [] if found is None else [found]
