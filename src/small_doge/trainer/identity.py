"""What a run is: the facts that must be the same for it to go on, and what to do where they are not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..processor.data_config import choose_packing
from ..processor.stream import MixedStream
from ..utils.errors import UserError
from ..utils.files import write_json
from .arguments import MUON, AdapterArguments, DataArguments, ModelArguments, StageArguments


IDENTITY = "run.json"
# Rows that are read to tell whether the data are the same.
SAMPLED_ROWS = 64
# Of a configuration: what changes neither weights nor outputs, or is written by whoever saves.
IGNORED_FIELDS = {
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "use_cache",
    "architectures",
    "id2label",
    "vocabulary_hash",  # the facts of the tokenizer say more
}
# Settings of the data that say where and how fast, not what.
IGNORED_DATA = {
    "cache_dir",
    "dataset_num_proc",
    "max_bad_rows",
    "max_bad_share",
    "dataset_name",
    "seed",
    "formatting_func",
}


def describe_run(
    title: str,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: StageArguments,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | MixedStream,
) -> dict[str, Any]:
    """Describe a run by groups of facts. The learning rate, the number of steps and how often to save may change, and are left out.

    Args:
        title: of the stage.
        model_args: which model.
        data_args: which data.
        args: how to train.
        model: with its adapter, if it has one.
        tokenizer: of the model.
        rows: of the training split.
    """
    config = {name: value for name, value in model.config.to_diff_dict().items() if name not in IGNORED_FIELDS}
    facts: dict[str, Any] = {
        "stage": {"stage": title},
        "model": config,
        "tokenizer": {
            "tokenizer": _hash(sorted(tokenizer.get_vocab().items())),
            "chat_template": _hash(tokenizer.chat_template),
        },
        "data": {
            **{name: value for name, value in asdict(data_args).items() if name not in IGNORED_DATA},
            **_describe_rows(rows),
        },
        "order": {
            "seed": args.seed,
            "data_seed": args.data_seed,
            "rows of a step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        },
        "optimizer": {
            "optim": name_optimizer(args),
            "lr_scheduler_type": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        },
    }
    if isinstance(model_args, AdapterArguments) and model_args.lora_r:
        names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
        facts["adapter"] = {name: getattr(model_args, name) for name in names}
    return json.loads(json.dumps(facts, default=str))


def name_optimizer(args: StageArguments) -> str:
    """Name the optimizer of a run; those of torch that keep the same state have one name."""
    name = str(getattr(args.optim, "value", args.optim))
    return "adamw_torch" if name == "adamw_torch_fused" else name


def read_optimizer(folder: Path) -> str | None:
    """Read the name of the optimizer whose state a checkpoint holds; None where it is not recorded."""
    path = folder / IDENTITY
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return facts.get("optimizer", {}).get("optim")


def write_identity(folder: Path, facts: dict[str, Any]) -> None:
    """Write the facts of a run beside a checkpoint's weights."""
    write_json(folder / IDENTITY, facts)


def check_identity(folder: Path, facts: dict[str, Any]) -> None:
    """Raise a `UserError` if a checkpoint belongs to another run; one without facts is older, and is taken."""
    path = folder / IDENTITY
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if "packing" in before.get("data", {}):  # older versions wrote true and false, also where nothing is packed
        packs = facts["data"].get("row_format") in (None, "text", "conversation")
        before["data"]["packing"] = choose_packing(packs and before["data"]["packing"])
    if "optimizer" not in before:  # older versions named Muon only
        before["optimizer"] = {"optim": "adamw_torch"} if facts["optimizer"]["optim"] == MUON else facts["optimizer"]
    before["optimizer"] = {**facts["optimizer"], **before["optimizer"]}  # older versions did not record the schedule
    # A setting of the data that only one version of this library has says nothing.
    shared = before.get("data", {}).keys() & facts["data"].keys()
    before, facts = (
        {**side, "data": {name: side["data"][name] for name in shared}} for side in ({"data": {}, **before}, facts)
    )
    changes = [
        f"{name}: {_show(before.get(group, {}).get(name))} before, {_show(facts.get(group, {}).get(name))} now"
        for group in dict.fromkeys((*before, *facts))
        for name in dict.fromkeys((*before.get(group, {}), *facts.get(group, {})))
        if before.get(group, {}).get(name) != facts.get(group, {}).get(name)
    ]
    if changes:
        raise UserError(
            f"{folder} belongs to another run:\n  "
            + "\n  ".join(changes)
            + "\nRestore these settings to go on with it; "
            "set overwrite to true to start over; or name another output_dir, with model_name_or_path to start from its "
            "weights"
        )


def _describe_rows(rows: Dataset | MixedStream) -> dict[str, Any]:
    """Describe what is in the rows, by a sample of them; of a stream, the files behind it."""
    if isinstance(rows, MixedStream):
        ranges = [
            (Path(file_range.path).name, file_range.start, file_range.stop, file_range.size)
            for source in rows.reader.sources
            for file_range in source.ranges
        ]
        return {"content": _hash(ranges)}
    step = max(1, len(rows) // SAMPLED_ROWS)
    return {"rows": len(rows), "content": _hash([rows[place] for place in range(0, len(rows), step)])}


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return xxhash.xxh64_hexdigest(text.encode("utf-8", "surrogatepass"))


def _show(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False) if value is not None else "not set"
    return shown if len(shown) <= 100 else shown[:97] + "..."
