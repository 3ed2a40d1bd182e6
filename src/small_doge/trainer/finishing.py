"""What a run leaves: its figures, and a complete model folder."""

import copy
import os
import time
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

from ..utils.files import share_weights, write_json, write_text
from ..utils.logging import get_logger
from ..utils.model_card import build_model_card
from ..utils.paths import FINISHED, LOSS_PICTURE
from .averaging import RAW
from .base import DogeTrainer
from .callbacks import read_log
from .checkpoints import ADAPTER, LOG_NAME, RECIPE
from .lineage import find_lineage
from .pictures import plot_training


logger = get_logger(__name__)


def put_average(trainer: DogeTrainer) -> None:
    """Put the average of the last weights into the model, if the run made one, and save the raw weights, an adapter merged, beside it."""
    if trainer.average is None:
        return
    trainer.check_finite()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.args.should_save and trainer.average.average is not None:
        folder = Path(trainer.args.output_dir) / RAW
        raw = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
        raw.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
    if not trainer.average.put_into(model):
        logger.warning("no step was averaged, since the run was at its end already: its last weights are the result")


def evaluate_finally(trainer: DogeTrainer) -> dict[str, float]:
    """Return the evaluation at the last step, which may have been made already; that of other weights is made anew."""
    if trainer.args.load_best_model_at_end or trainer.average is not None:
        return trainer.evaluate()
    last = trainer.state.log_history[-2:]
    done = [row for row in last if "eval_loss" in row and row["step"] == trainer.state.global_step]
    return done[0] if done else trainer.evaluate()


def collect_facts(trainer: DogeTrainer, metrics: dict, seconds: float, resume: Path | None) -> dict[str, Any]:
    """Collect the figures of a run: parameters, steps, tokens, losses and seconds."""
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


def save_finished(
    trainer: DogeTrainer,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    settings: dict[str, Any],
    facts: dict[str, Any],
    stage: str,
) -> None:
    """Write the complete model folder, file by file whole, with the mark of the end last."""
    temporary = output / ".finished"
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        trainer.check_finite()  # on every process, as `save_model` does
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
    for folder in (temporary, output / ADAPTER, output / RAW):
        share_weights(folder)
    for file in temporary.iterdir():
        os.replace(file, output / file.name)
    temporary.rmdir()
    title = output.resolve().name
    plot_training(read_log(output / LOG_NAME), output / LOSS_PICTURE, f"{stage}: {title}")
    write_text(output / RECIPE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    card = build_model_card(title, stage, facts, settings, str(output), LOSS_PICTURE, **find_lineage(settings))
    write_text(output / "README.md", card)
    write_json(output / FINISHED, {"stage": stage, "finished_at": time.time(), **facts})
    logger.info("finished: %s (loss curve: %s)", output, output / LOSS_PICTURE)
