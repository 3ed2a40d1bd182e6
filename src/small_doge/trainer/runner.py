"""One way to run a stage: prepare, resume, train, and leave a complete model folder."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed

from ..processor.measuring import count_scored_bytes
from ..utils.allocator import keep_freed_memory
from ..utils.errors import UserError
from ..utils.logging import get_logger
from ..utils.paths import FINISHED
from ..utils.processes import forks_end_with_us
from .arguments import StageArguments
from .base import DogeTrainer
from .building import add_adapter, build_model, find_tokenizer
from .callbacks import EnoughRowsCallback, FiniteLossCallback, LogFileCallback, ProgressCallback
from .checkpoints import find_last_whole
from .finishing import collect_facts, evaluate_finally, put_average, save_finished
from .identity import check_identity, describe_run
from .recipe import StageRun, load_run
from .rows import check_learnt, open_stream, prepare_data
from .saving import DiscardCallback
from .stages import find_stage
from .starting import (
    check_continuation,
    check_disk,
    check_evaluation,
    check_finished,
    check_output,
    find_optimizer_state,
    find_resume_point,
)


logger = get_logger(__name__)


def train_stage(name: str, config: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Path:
    """Train one stage with a recipe.

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
        check_finished(output, setup.title)
        logger.info("%s is finished already; pass --overwrite true to start over", output)
        return output
    if args.device.type == "cpu":
        keep_freed_memory()
    # 1. Check what can be known to be wrong, and find where to start.
    check_output(output, model_args)
    resume = find_resume_point(output, args)
    if data_args.dataset_name is None:
        check_evaluation(args, has_test_rows=data_args.test_size > 0)
    set_seed(args.seed)
    tokenizer = find_tokenizer(model_args)
    if model_args.continue_from is not None:
        check_continuation(model_args, args)
    # 2. Build the model, and make or load the rows.
    model = add_adapter(build_model(model_args, tokenizer), model_args)
    with args.main_process_first(desc="preparing data"):
        rows = prepare_data(run, tokenizer)
    check_evaluation(args, has_test_rows="test" in rows)
    for split, part in rows.items():
        check_learnt(part, split)
    check_disk(output, model, args)
    # 3. Make sure that a run which resumes is still the same run.
    identity = describe_run(setup.title, model_args, data_args, args, model, tokenizer, rows["train"])
    if resume is not None:
        check_identity(resume, identity)
    trainer = _build_trainer(run, model, tokenizer, rows, identity, resume)
    # 4. Train.
    started = time.monotonic()
    _train(trainer, resume)
    # 5. Evaluate once more where that is due, and leave a complete model folder.
    put_average(trainer)
    metrics = evaluate_finally(trainer) if "test" in rows else {}
    facts = collect_facts(trainer, metrics, time.monotonic() - started, resume)
    save_finished(trainer, tokenizer, output, run.settings, facts, setup.title)
    return output


def _build_trainer(
    run: StageRun,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: dict[str, Any],
    identity: dict[str, Any],
    resume: Path | None,
) -> DogeTrainer:
    """Build the trainer of a stage with the callbacks that watch every run."""
    setup, args, test = run.setup, run.args, rows.get("test")
    progress = ProgressCallback()
    args.disable_tqdm = True  # our progress is the only one: no bar of the library, nor its table in a notebook
    args.include_num_input_tokens_seen = "no" if setup.counts_own_tokens else "all"
    counts_bytes = test is not None and "input_ids" in test.column_names
    trainer = setup.trainer(
        model=model,
        args=args,
        train_dataset=rows["train"],
        stream=open_stream(rows["train"], run.data, args, resume) if run.data.streaming else None,
        eval_dataset=test,
        processing_class=tokenizer,
        callbacks=[
            EnoughRowsCallback(),
            *([DiscardCallback()] if args.overwrite else []),
            progress,
            LogFileCallback(args.output_dir, progress),
            FiniteLossCallback(),
            *(callback() for callback in setup.callbacks),
        ],
        settings=run.settings,
        identity=identity,
        eval_bytes=count_scored_bytes(test, tokenizer) if counts_bytes else None,
        optimizer_state=find_optimizer_state(run.model, resume),
        **setup.build_extras(run, model, tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


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
