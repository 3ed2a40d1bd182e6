"""The step-by-step data scripts of the published guides: fetch, process, join.

`small-doge data prepare` and `mix_datasets_by_ratio` do the last two in one call.
"""

import argparse
import os
import random
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash
from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk

from ..processor.catalog import CATALOG
from ..processor.data_config import DataConfig
from ..processor.download import download
from ..processor.mix_reader import share_out
from ..processor.prepare import PREPARED_BY, prepare
from ..processor.sources import DATA_ROOT
from ..processor.tokenizer import MADE_BY, read_texts, train_tokenizer
from ..trainer.stages import STAGES, find_stage
from ..utils.errors import UserError, told_errors
from ..utils.files import OVERWRITE_HELP, check_output, whole_folder
from ..utils.logging import get_logger
from ..utils.model_folder import load_tokenizer
from .names import correct_hub_name


logger = get_logger(__name__)

# Shares of pre-training rows, as in the guides.
SHARES = {"fineweb-edu": 0.7, "cosmopedia-v2": 0.2, "python-edu": 0.05, "finemath": 0.05}
TOKENIZER_SAMPLES = 2_000_000


def _script(main: Callable) -> Callable:
    """End a script on bad input with its message alone."""

    @wraps(main)
    def run(*args: str) -> None:
        with told_errors("the script", lambda message: logger.error("%s", message)):
            main(*args)

    return run


def names_of(kind: str) -> list[str]:
    """Return the data sets of `pt` or of `ft`, which are all others."""
    return [name for name, entry in CATALOG.items() if (entry.stage == "pretrain") == (kind == "pt")]


def _parser(kind: str, *required: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    helps = {
        "save_dir": "Where results go.",
        "datasets_dir": "Where the data sets lie.",
        "tokenizer_name_or_path": "Tokenizer.",
    }
    for name in required:
        parser.add_argument(f"--{name}", required=True, help=helps[name])
    parser.add_argument("--num_proc", type=int, default=1, help="Processes.")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    parser.add_argument(
        "--only", nargs="*", default=names_of(kind), choices=names_of(kind), help="These data sets alone."
    )
    return parser


@_script
def download_datasets(kind: str) -> None:
    """Run `download_pt_datasets.py` and `download_ft_datasets.py`."""
    parser = _parser(kind)
    parser.add_argument("--save_dir", default="./datasets", help="Where results go.")
    parser.add_argument("--cache_dir", default=None, help="Not needed: files go straight into --save_dir.")
    parser.add_argument("--is_parallel", action="store_true", help="As many files at once as there are cores.")
    parser.add_argument("--files", type=int, default=None, help="Fetch the first files of each alone.")
    args = parser.parse_args()
    if args.cache_dir:
        logger.info("--cache_dir=%s is not used: files go straight into %s", args.cache_dir, args.save_dir)
    if args.is_parallel:
        args.num_proc = max(args.num_proc, os.cpu_count() or 1)
    for name in args.only:
        print(download(name, Path(args.save_dir), args.files, args.num_proc))


@_script
def preprocess_datasets(kind: str) -> None:
    """Run `preprocess_pt_datasets.py` and `preprocess_ft_datasets.py`, which make a `NAME_processed` folder each."""
    parser = _parser(kind, "datasets_dir", "save_dir", "tokenizer_name_or_path")
    parser.add_argument("--train_examples", type=int, default=-1, help="Training rows of all data sets; -1 for all.")
    parser.add_argument("--test_examples", type=int, default=1000, help="Rows that the next step holds out.")
    parser.add_argument("--max_length", type=int, default=2048, help="Tokens of a row.")
    parser.add_argument("--packing", action="store_true", help="Several documents a row, in place of padding.")
    parser.add_argument("--seed", type=int, default=233, help="Of the order of rows.")
    parser.add_argument("--cache_dir", default=None, help="Where unfinished work is kept.")
    parser.add_argument("--max_bad_rows", type=int, default=DataConfig.max_bad_rows, help="Rows a data set may lose.")
    parser.add_argument("--max_bad_share", type=float, default=DataConfig.max_bad_share, help="Share of them.")
    args = parser.parse_args()
    outputs = {name: Path(args.save_dir) / f"{name}_processed" for name in args.only}
    for output in outputs.values():
        check_output(output, PREPARED_BY, args.overwrite)
    tokenizer = load_tokenizer(correct_hub_name(args.tokenizer_name_or_path), "--tokenizer_name_or_path")
    os.environ[DATA_ROOT] = args.datasets_dir
    total = args.train_examples + args.test_examples
    ratios = [SHARES.get(name, 1 / len(args.only)) for name in args.only]
    ratios = [ratio / sum(ratios) for ratio in ratios]
    counts = [-1] * len(args.only) if args.train_examples == -1 else share_out(total, ratios)
    for name, count in zip(args.only, counts, strict=True):
        local = Path(args.datasets_dir) / name  # a data set that `datasets` saved there
        stage = find_stage(CATALOG[name].stage)
        config = DataConfig(
            [{str(local) if local.is_dir() else name: 1.0}],
            stage.row_format,
            total_sample_size=count,
            max_length=args.max_length,
            packing=args.packing,
            apply_chat_template=True,
            seed=args.seed,
            max_bad_rows=args.max_bad_rows,
            max_bad_share=args.max_bad_share,
            dataset_num_proc=args.num_proc,
            cache_dir=args.cache_dir,
            **stage.data_defaults,
        )
        config.padding = config.gives_tokens and not args.packing
        rows = prepare(config, tokenizer)["train"]
        with whole_folder(outputs[name], PREPARED_BY, args.overwrite) as folder:
            rows.save_to_disk(str(folder))
        print(f"{outputs[name]}: {len(rows):,} rows")


@_script
def concatenate_datasets_of(kind: str) -> None:
    """Run `concatenate_pt_datasets.py` and `concatenate_ft_datasets.py`, which join the processed folders of a stage."""
    parser = _parser(kind, "datasets_dir", "save_dir")
    parser.add_argument("--train_examples", type=int, default=-1, help="Training rows; -1 for all.")
    parser.add_argument("--test_examples", type=int, default=1000, help="Rows held out.")
    parser.add_argument("--seed", type=int, default=233, help="Of the order of rows.")
    args = parser.parse_args()
    found = {name: Path(args.datasets_dir) / f"{name}_processed" for name in args.only}
    missing = [str(path) for path in found.values() if not path.is_dir()]
    if len(missing) == len(found):
        script = f"preprocess_{kind}_datasets.py"
        raise UserError(
            f"there is no processed data set in {args.datasets_dir}; make {missing[0]} first, with {script}"
        )
    for path in missing:
        logger.warning("%s is not there and is left out", path)
    for stage in STAGES:
        paths = [path for name, path in found.items() if CATALOG[name].stage == stage and path.is_dir()]
        if paths:
            rows = concatenate_datasets([load_from_disk(str(path)) for path in paths])
            splits = split_rows(rows, args.test_examples, args.seed, args.train_examples)
            output = Path(args.save_dir) / stage
            with whole_folder(output, PREPARED_BY, args.overwrite) as folder:
                splits.save_to_disk(str(folder), num_proc=args.num_proc if args.num_proc > 1 else None)
            print(f"{output}: " + ", ".join(f"{len(split):,} {name}" for name, split in splits.items()))


def split_rows(rows: Dataset, test_size: int, seed: int, train_size: int = -1) -> DatasetDict:
    """Split shuffled rows in two, no document of the one standing in the other.

    Args:
        rows: of any format.
        test_size: rows of the test split.
        seed: of the order.
        train_size: rows of the training split at most; -1 for all.

    Raises:
        ValueError: nothing is left for training.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    keys = list(_document_keys(rows))
    held_out = {key for index in order[:test_size] for key in keys[index]}
    train = [index for index in order[test_size:] if not held_out & set(keys[index])]
    if train_size != -1:
        train = train[:train_size]
    if not train:
        raise UserError(f"test_examples={test_size} leaves no row of {len(rows)} for training")
    splits = {"train": rows.select(train).flatten_indices()}
    if test_size:
        splits["test"] = rows.select(order[:test_size]).flatten_indices()
    return DatasetDict(splits)


def _document_keys(rows: Dataset) -> Iterator[list[int]]:
    """Yield a hash of each document of a row, or of its prompt for formats that have one."""
    for row in rows.select_columns([c for c in ("input_ids", "seq_lengths", "prompt") if c in rows.column_names]):
        if "prompt" in row:
            yield [xxhash.xxh64_intdigest(repr(row["prompt"]).encode())]
            continue
        tokens, keys, start = np.asarray(row["input_ids"], dtype=np.int32), [], 0
        for length in row["seq_lengths"]:
            keys.append(xxhash.xxh64_intdigest(tokens[start : start + length].tobytes()))
            start += length
        yield keys


@_script
def train_tokenizer_from_old() -> None:
    """Run `train_tokenizer_from_old.py`, on samples of the pre-training data sets in the guides' proportions."""
    parser = _parser("pt", "datasets_dir", "save_dir", "tokenizer_name_or_path")
    parser.add_argument("--vocab_size", type=int, default=32768, help="Entries.")
    parser.add_argument("--num_samples", type=int, default=TOKENIZER_SAMPLES, help="Texts.")
    parser.add_argument("--seed", type=int, default=233, help="Of the sample.")
    args = parser.parse_args()
    check_output(args.save_dir, MADE_BY, args.overwrite, [args.datasets_dir, args.tokenizer_name_or_path])
    os.environ[DATA_ROOT] = args.datasets_dir
    old = load_tokenizer(correct_hub_name(args.tokenizer_name_or_path), "--tokenizer_name_or_path")
    ratios = [SHARES[name] / sum(SHARES[n] for n in args.only) for name in args.only]
    counts = dict(zip(args.only, share_out(args.num_samples, ratios), strict=True))
    texts = (text for name, count in counts.items() for text in islice(read_texts([name]), count))
    trained = train_tokenizer(texts, args.vocab_size, base=old, seed=args.seed)
    with whole_folder(args.save_dir, MADE_BY, args.overwrite) as folder:
        trained.save_pretrained(folder)
    print(f"{args.save_dir}: {len(trained)} entries")
