"""Rows that were prepared before, in a folder."""

from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_from_disk

from ..utils.errors import UserError
from ..utils.model_folder import load_tokenizer
from ..utils.vocabulary import hash_vocabulary


# Rows that are looked at for the length of all: packing fills nearly each of them.
MEASURED_ROWS = 1000


def load_prepared(path: str | Path) -> DatasetDict | None:
    """Load a saved data set by split, or return None if the folder holds something else."""
    path = Path(path)
    if not ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
        return None
    rows = load_from_disk(str(path))
    return rows if isinstance(rows, DatasetDict) else DatasetDict(train=rows)


def open_prepared(name: str) -> DatasetDict:
    """Load the rows that `dataset_name` names, by split.

    Raises:
        UserError: there are none.
    """
    if not Path(name).is_dir():
        raise UserError(f"dataset_name={name}: there is no such folder; make it with small-doge data prepare")
    rows = load_prepared(name)
    if rows is None or "train" not in rows:
        raise UserError(
            f"dataset_name={name} holds no prepared training rows; make them with small-doge data prepare, or name raw data "
            "in datasets_and_ratios"
        )
    return rows


def find_other_tokenizer(folder: str | Path, tokenizer: Any) -> Path | None:
    """Find the tokenizer that prepared rows were made with, if its vocabulary is another one than that of `tokenizer`.

    Args:
        folder: of the rows, or of one of their splits.
        tokenizer: of the model that is to read them.
    """
    folder = Path(folder)
    is_split = (folder.parent / "dataset_dict.json").is_file()
    own = (folder.parent if is_split else folder) / "tokenizer"
    if own.is_dir() and hash_vocabulary(load_tokenizer(own)) != hash_vocabulary(tokenizer):
        return own
    return None


def find_row_length(rows: DatasetDict) -> int | None:
    """Find the number of tokens of the longest training row; None for rows that are not tokens yet."""
    if "input_ids" not in rows["train"].column_names:
        return None
    first = rows["train"].select(range(min(MEASURED_ROWS, len(rows["train"]))))
    return max((len(ids) for ids in first["input_ids"]), default=None)
