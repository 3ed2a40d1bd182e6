"""One way to run a stage: prepare, resume, train, and leave a complete model folder."""

import json
import math
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
import yaml
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers import ProgressCallback as StockProgressCallback

from ..models import DogeConfig, DogeForCausalLM, load_model
from ..processor.measuring import count_scored_bytes
from ..processor.mixing import make_rows
from ..processor.packing import IGNORED, PackedCollator
from ..processor.stream import MixedStream, StreamLoader
from ..processor.tokenizer import build_generation_config
from ..utils import model_folder
from ..utils.errors import UserError
from ..utils.files import check_output_path, find_damage, write_json, write_text
from ..utils.hub import find_hub_file
from ..utils.logging import get_logger
from ..utils.model_card import build_model_card
from ..utils.model_folder import check_tokenizer_fits
from ..utils.paths import FINISHED, find_near_names
from ..utils.processes import forks_end_with_us
from ..utils.suggest import unknown_name_message
from .arguments import AdapterArguments, DataArguments, ModelArguments, StageArguments
from .base import DogeTrainer
from .callbacks import FiniteLossCallback, LogFileCallback, ProgressCallback, read_log
from .checkpoints import DATA_POSITION, LOG_NAME, RECIPE, discard_run, find_bad_weights, find_last_whole, read_step
from .identity import check_identity, describe_run
from .pictures import plot_training
from .recipe import StageRun, load_run
from .stages import find_stage


logger = get_logger(__name__)


PICTURE = "loss.png"

# The adapter alone, beside the weights that it is merged into.
ADAPTER = "adapter"


def load_tokenizer(model: ModelArguments) -> PreTrainedTokenizerBase:
    """The tokenizer that the settings name, or that of the model."""
    name = model.tokenizer_name_or_path or model.model_name_or_path or model.continue_from
    if name is None:
        raise UserError("tokenizer_name_or_path is missing: a new model needs to be told its tokenizer")
    return model_folder.load_tokenizer(name, "tokenizer_name_or_path" if model.tokenizer_name_or_path else "model")


def build_model(model: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> DogeForCausalLM:
    """A new model of a preset, or a trained one."""
    trained = model.model_name_or_path or model.continue_from
    if trained is not None:
        if model.model_overrides:
            raise UserError("model_overrides change new models only; a trained one keeps its configuration")
        doge = load_model(AutoModelForCausalLM, trained, dtype=torch.float32)
    else:
        tokens = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        doge = DogeForCausalLM(DogeConfig.from_preset(model.model_preset, **{**tokens, **model.model_overrides}))
    check_tokenizer_fits(tokenizer, doge.config.vocab_size)
    if trained is not None and model.tokenizer_name_or_path is not None:
        check_tokenizer_belongs(trained, model.tokenizer_name_or_path, tokenizer)
    doge.generation_config = build_generation_config(tokenizer)
    return doge


def check_tokenizer_belongs(model: str, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a `UserError` if tokens that trained weights have learnt have other numbers in another tokenizer."""
    own = model_folder.load_tokenizer(model)
    if own is None:
        return
    vocab = tokenizer.get_vocab()
    wrong = [token for token, number in own.get_vocab().items() if vocab.get(token) != number]
    if wrong:
        raise UserError(
            f"tokenizer_name_or_path={name} is not the tokenizer of {model}: {len(wrong)} of its tokens have other numbers "
            f"there or are missing, such as {wrong[0]!r}. Leave tokenizer_name_or_path out, or train new weights"
        )


def add_adapter(model: DogeForCausalLM, args: ModelArguments) -> Any:
    """The model with a new LoRA adapter, which alone is trained, where the settings ask for one.

    Raises:
        ValueError: peft is not installed, or a named layer is not there.
    """
    if not isinstance(args, AdapterArguments) or not args.lora_r:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UserError(f"lora_r={args.lora_r}: peft is not installed; run: pip install 'small-doge[lora]'") from None
    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for name in args.lora_target_modules:
        if name not in layers - {"lm_head"}:
            raise UserError(unknown_name_message("layer in lora_target_modules", name, sorted(layers - {"lm_head"})))
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def prepare_data(run: StageRun, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The rows to train on by split: loaded; or mixed once and kept, so that a resumed run never tokenises again; or streamed."""
    data, setup = run.data, run.setup
    if data.dataset_name is not None:
        if not Path(data.dataset_name).is_dir():
            raise UserError(
                f"dataset_name={data.dataset_name}: there is no such folder; make it with small-doge data prepare"
            )
        rows = load_from_disk(data.dataset_name)
        rows = rows if isinstance(rows, DatasetDict) else DatasetDict(train=rows)
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


def train_stage(name: str, config: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Path:
    """Train a stage by a recipe.

    Args:
        name: name of the stage, such as `sft`; see `small_doge.trainer.stages`.
        config: recipe, a YAML file.
        overrides: settings that override the recipe.

    Returns:
        The folder of the finished model.

    Raises:
        UserError: settings that don't fit; the disk or the memory is full; the loss is not finite.
    """
    return run_stage(load_run(find_stage(name), config, overrides or {}))


@forks_end_with_us()
def run_stage(run: StageRun) -> Path:
    """Train, or go on from the last whole checkpoint, and write a complete model folder, which is returned."""
    setup, model_args, data_args, args = run.setup, run.model, run.data, run.args
    output = Path(args.output_dir)
    if (output / FINISHED).exists() and not args.overwrite:
        _check_finished(output, setup.title)
        logger.info("%s is finished already; pass --overwrite true to start over", output)
        return output
    _check_output(output, model_args)
    resume = _prepare_output(output, args)
    set_seed(args.seed)
    tokenizer = load_tokenizer(model_args)
    if model_args.continue_from is not None:
        _check_continuation(model_args, args)
    model = add_adapter(build_model(model_args, tokenizer), model_args)
    with args.main_process_first(desc="preparing data"):
        rows = prepare_data(run, tokenizer)
    if args.eval_strategy != "no" and "test" not in rows:
        raise UserError(
            f"eval_strategy={args.eval_strategy} needs held-out rows: set test_size, or eval_strategy to no"
        )
    for split, part in rows.items():
        check_learnt(part, split)
    _check_disk(output, model, args)
    identity = describe_run(setup.title, model_args, data_args, args, model, tokenizer, rows["train"])
    if resume is not None:
        check_identity(resume, identity)

    if args.overwrite and args.should_save:
        discard_run(output)  # only now that the new run can start
    test = rows.get("test")
    progress = ProgressCallback()
    args.include_num_input_tokens_seen = "no" if setup.counts_own_tokens else "all"
    stream = _open_stream(rows["train"], data_args, args, resume) if data_args.streaming else None
    counts_bytes = test is not None and "input_ids" in test.column_names
    trainer = setup.trainer(
        model=model,
        args=args,
        train_dataset=rows["train"],
        stream=stream,
        eval_dataset=test,
        processing_class=tokenizer,
        callbacks=[
            progress,
            LogFileCallback(args.output_dir, progress),
            FiniteLossCallback(),
            *(callback() for callback in setup.callbacks),
        ],
        settings=run.settings,
        identity=identity,
        eval_bytes=count_scored_bytes(test, tokenizer) if counts_bytes else None,
        optimizer_state=_optimizer_state(model_args, resume),
        **setup.build_extras(run, model, tokenizer),
    )
    for stock in (StockProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    started = time.monotonic()
    _train(trainer, resume)
    metrics = _final_metrics(trainer) if test is not None else {}
    facts = _collect_facts(trainer, metrics, time.monotonic() - started, resume)
    _save_finished(trainer, tokenizer, output, run.settings, facts, setup.title)
    return output


def _check_output(output: Path, model: ModelArguments) -> None:
    """A run never writes over the model that it starts from, nor where nothing can be written."""
    check_output_path(output)
    for name in ("model_name_or_path", "continue_from", "tokenizer_name_or_path"):
        value = getattr(model, name)
        if value is not None and Path(value).is_dir() and Path(value).resolve() == output.resolve():
            raise UserError(f"output_dir={output} is the {name} too, and would be written over; name another folder")


def _prepare_output(output: Path, args: StageArguments) -> Path | None:
    """The checkpoint to go on from."""
    output.mkdir(parents=True, exist_ok=True)
    resume = None if args.overwrite else _find_checkpoint(output, args.resume_from_checkpoint)
    if resume is not None:
        logger.info("going on from %s", resume)
        if not (resume / "optimizer.pt").is_file() and not list(resume.glob("global_step*")):
            logger.warning("%s has no state of the optimizer, which starts anew", resume)
    return resume


def _find_checkpoint(output: Path, asked: str | bool | None) -> Path | None:
    """The checkpoint that is asked for, or the last whole one of the folder.

    Raises:
        UserError: the one that is asked for is not there, or is damaged.
    """
    if asked is None or str(asked).lower() in ("true", "false", "none", ""):
        return find_last_whole(output)
    path = Path(str(asked))
    if not path.is_dir():
        raise UserError(f"resume_from_checkpoint={asked}: there is no such folder{find_near_names(path)}")
    damage = find_damage(path) or find_bad_weights(path)
    if damage is not None:
        raise UserError(f"resume_from_checkpoint={asked}: {damage}; name another checkpoint")
    return path


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


def _check_finished(output: Path, title: str) -> None:
    """A folder that another stage has finished is not this one's result."""
    before = json.loads((output / FINISHED).read_text(encoding="utf-8")).get("stage")
    if before not in (None, title):
        raise UserError(
            f"output_dir={output} holds the result of another stage ({before}, now {title}); name another folder, "
            "or set overwrite to true"
        )


def _check_continuation(model: ModelArguments, args: StageArguments) -> None:
    path = Path(model.continue_from)
    if not path.is_dir() and (path.is_absolute() or len(path.parts) != 2):
        raise UserError(f"continue_from={model.continue_from}: there is no such folder")
    if args.lr_scheduler_type == "warmup_stable_decay" and args.warmup_steps != 0:
        raise UserError(
            f"warmup_steps={args.warmup_steps}: going on from a stable checkpoint has no warm-up, set warmup_steps to 0"
        )


def _optimizer_state(model: ModelArguments, resume: Path | None) -> Path | None:
    """The optimizer's state to start from, unless the run itself is being resumed.

    Raises:
        UserError: the checkpoint has none, and `reset_optimizer` is not set.
    """
    if model.continue_from is None or resume is not None or model.reset_optimizer:
        return None
    state: Path | str | None = Path(model.continue_from) / "optimizer.pt"
    if not Path(model.continue_from).is_dir():
        state = find_hub_file(model.continue_from, "optimizer.pt")
    if state is None or not Path(state).is_file():
        raise UserError(
            f"continue_from={model.continue_from} has no optimizer.pt, without which the optimizer starts anew and the loss "
            "rises at first: set reset_optimizer to true to go on so, or name a checkpoint folder of a run"
        )
    return Path(state)


def _check_disk(output: Path, model: DogeForCausalLM, args: StageArguments) -> None:
    """Weights and two moments in float32 for each checkpoint, and the weights once more at the end."""
    if args.save_strategy == "no" or not args.should_save:
        return
    kept = (args.save_total_limit or 10) + 1
    needed = model.num_parameters() * 4 * (3 * kept + 1)
    free = shutil.disk_usage(output).free
    if free < needed:
        raise UserError(
            f"the disk of {output} has {free / 2**30:.1f} GiB free, and {kept} checkpoints need {needed / 2**30:.1f} GiB: "
            "free some space, lower save_total_limit, or choose another output_dir"
        )


def _open_stream(rows: MixedStream, data: DataArguments, args: StageArguments, resume: Path | None) -> StreamLoader:
    """Batches of a stream from where the checkpoint stands; `max_steps` follows from the rows where it is not set."""
    batch = args.per_device_train_batch_size
    if args.max_steps <= 0:
        if data.total_sample_size == -1:
            raise UserError(
                "streaming needs to know how long to train: set max_steps, or total_sample_size to a number of rows"
            )
        per_step = batch * args.gradient_accumulation_steps * args.world_size
        args.max_steps = max(1, int(data.total_sample_size * args.num_train_epochs) // per_step)
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
        turns=sys.maxsize if data.total_sample_size == -1 else math.ceil(args.num_train_epochs),
        fetch_ahead=args.dataloader_num_workers > 0,
        first_step=read_step(resume) if resume else 0,
    )


def _train(trainer: DogeTrainer, resume: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except KeyboardInterrupt:
        last = find_last_whole(trainer.args.output_dir)
        raise UserError(
            "interrupted; the same command goes on from "
            + (str(last) if last else "the start: no checkpoint was written yet")
        ) from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(_memory_advice(trainer.args)) from error
    except (OSError, RuntimeError) as error:
        if _is_disk_full(error):
            raise UserError(
                f"the disk of {trainer.args.output_dir} is full. Free some space and run the same command: it goes on from "
                f"{find_last_whole(trainer.args.output_dir) or 'the start'}"
            ) from error
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise UserError(_memory_advice(trainer.args)) from error
        raise


def _final_metrics(trainer: DogeTrainer) -> dict[str, float]:
    """The evaluation at the last step, which may have been made already; that of the best weights is made anew."""
    if trainer.args.load_best_model_at_end:
        return trainer.evaluate()
    last = trainer.state.log_history[-2:]
    done = [row for row in last if "eval_loss" in row and row["step"] == trainer.state.global_step]
    return done[0] if done else trainer.evaluate()


def _is_disk_full(error: BaseException) -> bool:
    return (
        getattr(error, "errno", None) == 28 or "No space left on device" in str(error) or "os error 28" in str(error)
    )


def _memory_advice(args: StageArguments) -> str:
    return (
        f"out of memory with per_device_train_batch_size={args.per_device_train_batch_size}: halve it and double "
        f"gradient_accumulation_steps (now {args.gradient_accumulation_steps}), which gives the same result; or set "
        "activation_checkpointing to true, or lower max_length"
    )


def _collect_facts(trainer: DogeTrainer, metrics: dict, seconds: float, resume: Path | None) -> dict[str, Any]:
    state = trainer.state
    rows = [row for row in state.log_history if "loss" in row]
    facts: dict[str, Any] = {
        "parameters": f"{trainer.model.num_parameters():,}",
        "steps": state.global_step,
        "tokens": f"{int(state.num_input_tokens_seen):,}",
        "training loss": round(rows[-1]["loss"], 4) if rows else None,
    }
    if metrics:
        facts["held-out loss"] = round(metrics["eval_loss"], 4)
        for name, value in metrics.items():
            if name.startswith("eval_reward") and not name.endswith(("/std", "_std")) and value is not None:
                facts["held-out " + name.removeprefix("eval_").replace("/", " ")] = round(value, 4)
        if "eval_bits_per_byte" in metrics:
            facts["held-out bits per byte"] = round(metrics["eval_bits_per_byte"], 4)
    facts["seconds" if resume is None else "seconds since the last resume"] = round(seconds)
    return facts


def _save_finished(
    trainer: DogeTrainer,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    settings: dict[str, Any],
    facts: dict[str, Any],
    stage: str,
) -> None:
    """The complete model folder, file by file whole, with the mark of the end written last."""
    temporary = output / ".finished"
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        if trainer.args.should_save:
            model.save_pretrained(output / ADAPTER)
            model.merge_and_unload().save_pretrained(temporary)
    else:
        trainer.save_model(str(temporary))  # all processes: ZeRO-3 gathers the weights
    trainer.accelerator.wait_for_everyone()
    if not trainer.args.should_save:
        return
    (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle
    tokenizer.save_pretrained(temporary)
    for file in temporary.iterdir():
        os.replace(file, output / file.name)
    temporary.rmdir()
    title = output.resolve().name
    plot_training(read_log(output / LOG_NAME), output / PICTURE, f"{stage}: {title}")
    write_text(output / RECIPE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    write_text(output / "README.md", build_model_card(title, stage, facts, settings, str(output), PICTURE))
    write_json(output / FINISHED, {"stage": stage, "finished_at": time.time(), **facts})
    logger.info("finished: %s (loss curve: %s)", output, output / PICTURE)
