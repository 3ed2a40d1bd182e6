"""Where a run starts: checks of its folders, the checkpoint to resume from, an optimizer's state to go on with."""

import json
import shutil
from pathlib import Path

from ..models import DogeForCausalLM
from ..utils.errors import UserError
from ..utils.files import check_output_path, find_damage
from ..utils.hub import find_hub_file
from ..utils.logging import get_logger
from ..utils.paths import FINISHED, find_near_names
from .arguments import ModelArguments, StageArguments
from .checkpoints import estimate_disk, find_bad_weights, find_last_whole, list_checkpoints


logger = get_logger(__name__)


def check_output(output: Path, model: ModelArguments) -> None:
    """Refuse to write over the model that the run starts from, or where nothing can be written."""
    check_output_path(output)
    own = {path.resolve() for path in (output, *list_checkpoints(output))}
    for name in ("model_name_or_path", "continue_from", "tokenizer_name_or_path"):
        value = getattr(model, name)
        if value is not None and Path(value).is_dir() and Path(value).resolve() in own:
            raise UserError(
                f"output_dir={output} holds {name}={value}, which would be written over; name another folder"
            )


def find_resume_point(output: Path, args: StageArguments) -> Path | None:
    """Find the checkpoint to go on from."""
    output.mkdir(parents=True, exist_ok=True)
    resume = None if args.overwrite else _find_checkpoint(output, args.resume_from_checkpoint)
    if resume is not None:
        logger.info("going on from %s", resume)
        if not (resume / "optimizer.pt").is_file() and not list(resume.glob("global_step*")):
            logger.warning("%s has no state of the optimizer, which starts anew", resume)
    return resume


def _find_checkpoint(output: Path, asked: str | bool | None) -> Path | None:
    """Find the checkpoint that is asked for, or the last whole one of the folder.

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


def check_finished(output: Path, title: str) -> None:
    """Refuse a folder that another stage has finished."""
    before = json.loads((output / FINISHED).read_text(encoding="utf-8")).get("stage")
    if before not in (None, title):
        raise UserError(
            f"output_dir={output} holds the result of another stage ({before}, now {title}); name another folder, "
            "or set overwrite to true"
        )


def check_continuation(model: ModelArguments, args: StageArguments) -> None:
    """Refuse a checkpoint to continue from that is not there, and a warm-up after it."""
    path = Path(model.continue_from)
    if not path.is_dir() and (path.is_absolute() or len(path.parts) != 2):
        raise UserError(f"continue_from={model.continue_from}: there is no such folder")
    if args.lr_scheduler_type == "warmup_stable_decay" and args.warmup_steps != 0:
        raise UserError(
            f"warmup_steps={args.warmup_steps}: going on from a stable checkpoint has no warm-up, set warmup_steps to 0"
        )


def find_optimizer_state(model: ModelArguments, resume: Path | None) -> Path | None:
    """Find the optimizer's state to start from, unless the run itself is being resumed.

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


def check_disk(output: Path, model: DogeForCausalLM, args: StageArguments) -> None:
    """Refuse a run whose checkpoints do not fit on the disk."""
    if args.save_strategy == "no" or not args.should_save:
        return
    needed = estimate_disk(model, args)
    free = shutil.disk_usage(output).free
    if free < needed:
        raise UserError(
            f"the disk of {output} has {free / 2**30:.1f} GiB free, and its checkpoints need {needed / 2**30:.1f} GiB: "
            "free some space, lower save_total_limit, or choose another output_dir"
        )


def check_evaluation(args: StageArguments, has_test_rows: bool) -> None:
    """Refuse a run that is to evaluate on held-out rows where there are none."""
    if args.eval_strategy != "no" and not has_test_rows:
        raise UserError(
            f"eval_strategy={args.eval_strategy.value} needs held-out rows: set test_size, or eval_strategy to no"
        )
