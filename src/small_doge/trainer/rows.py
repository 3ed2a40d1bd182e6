"""The rows that a run trains on."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..processor.mixing import make_rows
from ..processor.packing import IGNORED, PackedCollator
from ..processor.prepared import find_other_tokenizer, open_prepared
from ..processor.stream import MixedStream, StreamLoader
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .arguments import DataArguments, StageArguments
from .checkpoints import DATA_POSITION, read_step
from .recipe import StageRun


logger = get_logger(__name__)


def prepare_data(run: StageRun, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Load the rows to train on by split; or mix them once and keep them, so that a resumed run never tokenises again; or stream."""
    data, setup = run.data, run.setup
    if data.dataset_name is not None:
        rows = open_prepared(data.dataset_name)
        check_prepared_tokenizer(data.dataset_name, tokenizer)
        missing = set(setup.columns) - set(rows["train"].column_names)
        if missing:
            raise UserError(
                f"the training rows have no column {', '.join(sorted(missing))}; make them with small-doge data prepare"
            )
        return rows
    if data.streaming and not setup.streams:
        raise UserError(f"streaming=true: {setup.title.lower()} needs prepared rows; set streaming to false")
    cache_dir = data.cache_dir or str(Path(run.args.output_dir) / "data")
    return make_rows(replace(data, seed=run.args.seed, cache_dir=cache_dir), tokenizer)


def check_prepared_tokenizer(folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a `UserError` if the tokenizer that a folder of prepared rows keeps has another vocabulary."""
    own = find_other_tokenizer(folder, tokenizer)
    if own is not None:
        raise UserError(
            f"the rows of dataset_name={folder} were made with another tokenizer than the model's: prepare them with that of "
            f"the model, or set tokenizer_name_or_path to {own} for new weights"
        )


def check_learnt(rows: Any, split: str) -> None:
    """Raise a `UserError` for prepared rows none of whose tokens is learnt; a stream drops such rows as it makes them."""
    if not isinstance(rows, Dataset) or "labels" not in rows.column_names:
        return
    labels = rows.data.column("labels")
    if not any(pc.any(pc.not_equal(pc.list_flatten(chunk), IGNORED)).as_py() for chunk in labels.chunks):
        raise UserError(
            f"none of the {len(rows):,} rows of the {split} split has a token that is learnt: raise max_length, or look at "
            "the data with small-doge data inspect"
        )


def open_stream(rows: MixedStream, data: DataArguments, args: StageArguments, resume: Path | None) -> StreamLoader:
    """Read batches of a stream from where the checkpoint stands; `max_steps` follows from the rows where it is not set."""
    batch = args.per_device_train_batch_size
    if args.max_steps <= 0:
        if data.total_sample_size == -1:
            raise UserError(
                "streaming needs to know how long to train: set max_steps, or total_sample_size to a number of rows"
            )
        per_step = batch * args.gradient_accumulation_steps * args.world_size
        args.max_steps = max(1, int(data.total_sample_size * args.num_train_epochs) // per_step)
    turns = sys.maxsize if data.total_sample_size == -1 else math.ceil(args.num_train_epochs)
    if data.total_sample_size != -1 and data.total_sample_size * turns < batch * args.world_size:
        raise UserError(
            f"total_sample_size={data.total_sample_size} in {turns} epochs is less than one batch of {batch} rows on "
            f"{args.world_size} processes: lower per_device_train_batch_size, or train on more rows"
        )
    if args.dataloader_num_workers > 1:
        logger.warning("dataloader_num_workers=%d: a stream is prepared by one process", args.dataloader_num_workers)
    if resume is not None:
        position = resume / DATA_POSITION
        if not position.is_file():
            raise UserError(
                f"streaming=true, but {resume} was not trained on a stream; pass --overwrite true to start over"
            )
        rows.load_state_dict(json.loads(position.read_text(encoding="utf-8")))
    args.ignore_data_skip = True  # the position is restored, nothing is to be skipped
    return StreamLoader(
        rows,
        batch,
        args.process_index,
        args.world_size,
        PackedCollator(),
        turns=turns,
        fetch_ahead=args.dataloader_num_workers > 0,
        first_step=read_step(resume) if resume else 0,
    )
