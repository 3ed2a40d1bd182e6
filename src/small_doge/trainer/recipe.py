"""Recipes: YAML files and command-line settings into arguments, with unknown keys refused and aliases named."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from ..compat import names as older_names
from ..models import DogeConfig
from ..processor.prepared import find_row_length, open_prepared
from ..utils.errors import UserError
from ..utils.hardware import has_fast_bf16
from ..utils.logging import get_logger
from ..utils.suggest import unknown_name_message
from .arguments import (
    MUON,
    NEW_MODEL_SETTINGS,
    PRETRAIN_ARGUMENTS,
    Arguments,
    DataArguments,
    ModelArguments,
    StageArguments,
    is_launched_with_fsdp,
)
from .setup import TrainingSetup
from .stages import Stage


logger = get_logger(__name__)

# Settings that rows which are prepared already have no use for.
SETTINGS_OF_PREPARING = (
    "total_sample_size",
    "test_size",
    "dataset_text_field",
    "formatting_func",
    "packing",
    "padding",
    "apply_chat_template",
    "system_prompt",
    "identity",
    "identity_share",
    "max_bad_rows",
    "max_bad_share",
    "dataset_num_proc",
    "cache_dir",
)

# The package behind each tracker.
TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def parse_command_line(argv: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Parse `--config FILE` and settings as `--name value`, `--name=value` or `--name` (true).

    `--config_file FILE`, which the published guides put behind the script, belongs to `accelerate launch` and is skipped.

    Returns:
        The recipe's path and the settings.

    Raises:
        ValueError: a word that is not a setting.
    """
    config, settings, words = None, {}, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"unexpected {word!r}: settings are given as --name value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        name = name.replace("-", "_")
        if name == "config":
            config = value
        elif name == "config_file":
            logger.warning(
                "--config_file=%s behind the script is skipped: put it before, for accelerate launch", value
            )
        else:
            settings[name] = yaml.safe_load(value)
    return config, settings


def read_recipe(path: str | Path | None) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Raises:
        ValueError: no such file, or not a mapping.
    """
    if path is None:
        return {}
    path = older_names.rename_recipe(Path(path))
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"--config {path}: there is no such file" + (f"; there are {', '.join(near)}" if near else ""))
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise UserError(f"--config {path} must hold settings as `name: value` lines")
    return recipe


def known_settings(classes: Sequence[type] = PRETRAIN_ARGUMENTS) -> dict[str, dataclasses.Field]:
    """Return every setting of a stage by name."""
    return {f.name: f for cls in classes for f in dataclasses.fields(cls) if f.init and f.metadata.get("recipe", True)}


def resolve_settings(
    settings: dict[str, Any], source: str = "the recipe", classes: Sequence[type] = PRETRAIN_ARGUMENTS
) -> dict[str, Any]:
    """Replace aliases with a notice, convert numbers written as text, and refuse unknown names.

    Raises:
        ValueError: an unknown setting, with the near miss named, or the same one under two names.
    """
    known, resolved = known_settings(classes), {}
    for given, value in _nest(settings, known).items():
        name = older_names.SETTINGS.get(given, given)
        if name != given:
            older_names.tell_name(given, name)
        if name not in known:
            raise UserError(unknown_name_message("setting", given, known) + f" (in {source})")
        if name in resolved:
            raise UserError(f"{name} is set twice in {source}")
        if name == "lr_scheduler_type" and value in older_names.SCHEDULES:
            logger.info("lr_scheduler_type %s is called %s here", value, older_names.SCHEDULES[value])
            value = older_names.SCHEDULES[value]
        resolved[name] = _convert(name, value, str(known[name].type))
    if resolved.get("model_overrides"):
        resolved["model_overrides"] = older_names.rename_model_fields(resolved["model_overrides"])
    config_fields = {f.name for f in dataclasses.fields(DogeConfig)}
    for name in resolved.get("model_overrides") or {}:
        if name not in config_fields:
            raise UserError(unknown_name_message("field of model_overrides", name, config_fields))
    return resolved


def _nest(settings: dict[str, Any], known: dict[str, dataclasses.Field]) -> dict[str, Any]:
    """Turn `model_overrides.vocab_size: 8192` into an entry of model_overrides."""
    nested: dict[str, Any] = {}
    for given, value in settings.items():
        head, dot, entry = given.partition(".")
        if dot and head in known and _is_mapping(known[head]):
            nested[head] = merge_settings({head: nested.get(head, {})}, {head: {entry: value}})[head]
        elif given in known and _is_mapping(known[given]) and not _names_file(known[given], value):
            if not isinstance(value, dict | None):
                raise UserError(f"{given}={value!r} must be a mapping, such as {{name: value}}")
            nested[given] = {**(nested.get(given) or {}), **(value or {})}
        else:
            nested[given] = value
    return nested


def _is_mapping(setting: dataclasses.Field) -> bool:
    return str(setting.type).startswith("dict")


def _names_file(setting: dataclasses.Field, value: Any) -> bool:
    """Tell whether a text stands for a mapping in a file, which the library reads where its type allows a text."""
    return isinstance(value, str) and "| str" in str(setting.type)


def merge_settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Merge settings; the second wins, setting by setting and, where both hold a mapping, entry by entry."""
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _convert(name: str, value: Any, kind: str) -> Any:
    """Convert what YAML reads differently, such as 8e-3 as text and a plain no as false, to what was meant."""
    if value is None:
        if "None" not in kind:
            raise UserError(f"{name} has no value: give it one, or leave it out for the default")
        return None
    if value is False and name.endswith("_strategy"):
        return "no"
    entries = re.match(r"list\[(\w+)\]", kind)
    if entries:
        return [_convert(name, entry, entries[1]) for entry in _split_list(value)]
    if ("float" in kind or "int" in kind) and "str" not in kind:
        return _convert_number(name, value, whole="float" not in kind)
    if isinstance(value, str) and kind.startswith("bool") and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _split_list(value: Any) -> list[Any]:
    """Split a text at its commas, and put any other lone value into a list."""
    if isinstance(value, str):
        return [entry.strip() for entry in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _convert_number(name: str, value: Any, whole: bool) -> int | float:
    """Convert a number that may be written as text, and a whole one that may be written with a fraction of zero."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        raise UserError(f"{name}={value!r} is not a number") from None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{name}={value!r} must be a number")
    if not whole or isinstance(number, int):
        return number
    if not number.is_integer():
        raise UserError(f"{name}={value!r} is not a whole number")
    return int(number)


def adapt_to_machine(settings: dict[str, Any]) -> dict[str, Any]:
    """Replace what this machine can't do, each with a notice."""
    adapted = dict(settings)
    on_cpu = bool(settings.get("use_cpu")) or not (torch.cuda.is_available() or torch.backends.mps.is_available())

    def replace(name: str, value: Any, reason: str) -> None:
        if name in adapted and adapted[name] != value and adapted[name] not in (None, False):
            logger.warning("%s=%s is replaced by %s: %s", name, adapted[name], value, reason)
            adapted[name] = value

    if on_cpu:
        _refuse_fsdp_on_cpu()
        adapted["use_cpu"] = True
        if not has_fast_bf16("cpu"):
            replace("bf16", False, "this CPU has no bfloat16 instructions, float32 is faster")
        replace("fp16", False, "float16 training needs a GPU")
        replace("tf32", None, "tf32 needs an NVIDIA GPU")
        replace("use_liger_kernel", False, "Liger's kernels need a GPU")
        replace("dataloader_pin_memory", False, "pinned memory serves GPUs only")
        adapted.setdefault("dataloader_pin_memory", False)
        # torch 2.13 compiled for ten minutes, and could not lower the chunks of attention past the window in the end.
        replace("torch_compile", False, "compiling attention for a CPU takes minutes and fails; it needs a GPU")
        if "8bit" in str(adapted.get("optim", "")):
            replace("optim", "adamw_torch", "8-bit optimizers need a GPU")
    elif torch.cuda.is_available() and not has_fast_bf16("cuda") and adapted.get("bf16"):
        replace("bf16", False, "this GPU has no bfloat16; using float16")
        adapted["fp16"] = True
    cores = os.cpu_count() or 1
    if int(adapted.get("dataloader_num_workers") or 0) > cores:
        replace("dataloader_num_workers", cores, f"there are {cores} cores")
    return adapted


def _refuse_fsdp_on_cpu() -> None:
    if is_launched_with_fsdp():
        raise UserError(
            "FSDP needs GPUs: on a CPU it would silently train unsynchronised copies. "
            "Use recipes/accelerate_configs/ddp.yaml or deepspeed_zero3.yaml"
        )


def check_trackers(report_to: Any) -> None:
    """Name the install that brings a missing tracker, before work starts."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    for name in names:
        package = TRACKER_PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"report_to={name}: {package} is not installed; run: pip install 'small-doge[trackers]'")


def build_arguments(
    settings: dict[str, Any], classes: Arguments = PRETRAIN_ARGUMENTS, row_format: str = "text"
) -> tuple[ModelArguments, DataArguments, StageArguments]:
    """Build arguments from resolved and adapted settings.

    Raises:
        ValueError: settings that don't fit together.
    """
    check_trackers(settings.get("report_to", "tensorboard"))
    unused = [
        name for name in settings if name.startswith("lora_") and name != "lora_r" and not settings.get("lora_r")
    ]
    if unused:
        raise UserError(f"{unused[0]} is set, but no adapter is trained: set lora_r to a rank, or leave it out")

    def pick(cls: type) -> dict[str, Any]:
        names = {f.name for f in dataclasses.fields(cls) if f.init}
        return {name: value for name, value in settings.items() if name in names}

    try:
        of_model, of_data, of_stage = classes
        model, stage = of_model(**pick(of_model)), of_stage(**pick(of_stage))
        data = of_data(row_format=row_format, **pick(of_data))
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # of the library whose arguments they are
        raise UserError(f"settings that do not fit: {error}") from error
    if [model.model_preset, model.model_name_or_path, model.continue_from].count(None) != 2:
        raise UserError("set exactly one of model_preset (new weights), model_name_or_path and continue_from")
    for name in NEW_MODEL_SETTINGS:
        if model.model_preset is None and getattr(model, name):
            raise UserError(f"{name} changes new models only; a trained one keeps its configuration and weights")
    if (data.datasets_and_ratios is None) == (data.dataset_name is None):
        raise UserError("set exactly one of datasets_and_ratios (a mix to make) and dataset_name (one made before)")
    if data.dataset_name is not None:
        _check_prepared(data, settings)
    if stage.tokens_per_step is not None:
        stage.set_accumulation(compute_accumulation(stage, stage.compute_row_length(data.max_length), settings))
    if stage.optim == MUON and getattr(model, "lora_r", 0):
        raise UserError("optim=muon has no matrix to train beside an adapter: use another optim, or set lora_r to 0")
    _warn_of_ignored(settings, stage)
    return model, data, stage


def _check_prepared(data: DataArguments, settings: dict[str, Any]) -> None:
    """Take the length of rows that were prepared before, and name the settings that have no effect on them.

    Raises:
        UserError: there are no such rows, or they are to be streamed.
    """
    if data.streaming:
        raise UserError(f"streaming=true: the rows of dataset_name={data.dataset_name} are prepared; set it to false")
    length = find_row_length(open_prepared(data.dataset_name))
    if length is not None:
        data.max_length = length
    defaults = {field.name: field.default for field in dataclasses.fields(data)} | {"max_length": data.max_length}
    names = [*SETTINGS_OF_PREPARING, *(["max_length"] if length is not None else [])]
    ignored = [name for name in names if settings.get(name) not in (None, defaults[name])]
    if ignored:
        logger.warning("ignored, since dataset_name names rows that are prepared: %s", ", ".join(ignored))


def _warn_of_ignored(settings: dict[str, Any], stage: StageArguments) -> None:
    """Name the settings that have no effect beside the value that another setting has."""
    for needs, value, prefixes in (
        ("lr_scheduler_type", "warmup_stable_decay", ("stable_steps", "decay_steps", "decay_type", "min_lr_ratio")),
        ("optim", MUON, ("muon_", "embedding_lr")),
    ):
        chosen = getattr(stage, needs)
        if chosen != value:
            for name in settings:
                if name.startswith(prefixes) and settings[name] is not None:
                    logger.warning("%s is ignored: %s is %s", name, needs, getattr(chosen, "value", chosen))
    for name, has_no_effect, reason in (
        (
            "lr_scheduler_kwargs",
            stage.lr_scheduler_type == "warmup_stable_decay",
            "set decay_steps and min_lr_ratio instead",
        ),
        ("optim_args", stage.optim == MUON, "optim is muon"),
        ("weight_average_share", stage.weight_average == "none", "weight_average is none"),
        ("weight_average_decay", stage.weight_average != "ema", f"weight_average is {stage.weight_average}"),
        ("reset_optimizer", settings.get("continue_from") is None, "continue_from is not set"),
    ):
        if settings.get(name) and has_no_effect:
            logger.warning("%s is ignored: %s", name, reason)


def load_arguments(
    config: str | Path | None,
    overrides: dict[str, Any],
    classes: Arguments = PRETRAIN_ARGUMENTS,
    row_format: str = "text",
) -> tuple[ModelArguments, DataArguments, StageArguments, dict[str, Any]]:
    """Arguments and the resolved settings from a recipe and the command line, which wins.

    The settings are what was asked for; what this machine made of them is `adapted` of the training arguments.
    """
    recipe = resolve_settings(read_recipe(config), str(config), classes)
    recipe = merge_settings(recipe, resolve_settings(overrides, "the command line", classes))
    adapted = adapt_to_machine(recipe)
    model, data, args = build_arguments(adapted, classes, row_format)
    args.adapted = {name: value for name, value in adapted.items() if recipe.get(name) != value}
    return model, data, args, recipe


@dataclasses.dataclass(frozen=True)
class StageRun:
    """A run of a stage, known from its recipe and the settings that override it.

    Args:
        stage: entry of the stage in the table.
        setup: how it trains, as its module chose by the settings.
        model: which model.
        data: which data.
        args: how to train.
        settings: resolved recipe: what was asked for, before it was adapted to this machine.
    """

    stage: Stage
    setup: TrainingSetup
    model: ModelArguments
    data: DataArguments
    args: StageArguments
    settings: dict[str, Any]


def load_run(stage: Stage, config: str | Path | None, overrides: dict[str, Any]) -> StageRun:
    """Read the recipe of a stage, with settings that override it.

    Raises:
        ValueError: unknown settings, or settings that don't fit.
    """
    given = {**read_recipe(config), **overrides}
    setup = stage.set_up(given)
    if setup.row_format is None:  # the rows are those that the stage's entry describes
        defaults = {name: value for name, value in stage.data_defaults.items() if name not in given}
        overrides, setup = {**defaults, **overrides}, stage.set_up({**defaults, **given})
    return StageRun(
        stage, setup, *load_arguments(config, overrides, setup.arguments, setup.row_format or stage.row_format)
    )


def compute_accumulation(args: StageArguments, length: int, settings: dict[str, Any]) -> int:
    """Compute the accumulation steps that bring a step nearest to `tokens_per_step` on the processes at hand; print the sum.

    Args:
        args: of the stage.
        length: tokens of a full sequence, of which a row may have more than one.
        settings: resolved recipe.

    Raises:
        ValueError: it is set beside `gradient_accumulation_steps`, or is less than one batch.
    """
    if "gradient_accumulation_steps" in settings:
        raise UserError("set one of tokens_per_step and gradient_accumulation_steps")
    rows, processes = args.per_device_train_batch_size * args.sequences_per_row, args.world_size
    at_once = rows * length * processes
    if args.tokens_per_step < at_once:
        raise UserError(
            f"tokens_per_step={args.tokens_per_step} is less than one batch of {rows} sequences of {length} tokens on "
            f"{processes} processes, {at_once}: lower per_device_train_batch_size"
        )
    steps = round(args.tokens_per_step / at_once)
    logger.info(
        "a step: %d sequences x %d tokens x %d processes x %d accumulated = %s tokens (tokens_per_step=%s)",
        rows,
        length,
        processes,
        steps,
        f"{at_once * steps:,}",
        f"{args.tokens_per_step:,}",
    )
    return steps
