"""Direct preference optimisation on TRL's trainer: `dpo.py --config RECIPE.yaml [--setting value]`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer

import small_doge  # noqa: F401 (registers Doge)
from small_doge.trainer.arguments import (
    AdapterArguments,
    Arguments,
    DataArguments,
    StageSettings,
)
from small_doge.trainer.callbacks import JUDGED_SHARE
from small_doge.trainer.doge.script import run_script
from small_doge.trainer.on_trl import DogeOnTRL
from small_doge.trainer.ranges import (
    BELOW_HALF,
    COUNT,
    POSITIVE,
    REFERENCE,
    SHARE,
    check_choices,
    check_ranges,
    find_choices,
)
from small_doge.trainer.setup import TrainingSetup
from small_doge.utils.errors import UserError
from small_doge.utils.logging import get_logger


logger = get_logger(__name__)

RANGES = {
    **REFERENCE,
    **dict.fromkeys(("beta", "discopop_tau"), POSITIVE),
    "label_smoothing": BELOW_HALF,  # more would turn the preferences round
    "ld_alpha": SHARE,
    "precompute_ref_batch_size": COUNT,
}


@dataclass
class DPOArguments(StageSettings, DPOConfig):
    """`trl.DPOConfig` with the defaults of this project."""

    sequences_per_row: ClassVar[int] = 2

    precompute_ref_log_probs: bool = field(
        default=True,
        metadata={
            "help": "Compute the log-probabilities of the reference model once, before training, and then free it."
        },
    )
    learning_rate: float = field(default=8e-5, metadata={"help": "Peak learning rate."})
    max_length: int | None = field(
        default=DataArguments.max_length, metadata={"help": "Maximum number of tokens in a row."}
    )
    beta: float = field(default=0.1, metadata={"help": "How strongly the model is held to the reference model."})

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_choices(self, {name: find_choices(DPOConfig, name) for name in ("loss_type", "f_divergence_type")})
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise UserError("loss_type=exo_pair needs label_smoothing above 0: set it, to 1e-3 for example")
        if self.sync_ref_model and self.precompute_ref_log_probs:
            raise UserError(
                "sync_ref_model=true moves the reference while it trains: set precompute_ref_log_probs to false"
            )
        super().__post_init__()


DPO_ARGUMENTS: Arguments = (AdapterArguments, DataArguments, DPOArguments)


class DogeDPOTrainer(DogeOnTRL, DPOTrainer):
    """`trl.DPOTrainer` with the promises of this project."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Prepare rows as in TRL, which drops the pairs whose prompt alone fills a row without a word.

        Raises:
            ValueError: it drops all of them.
        """
        before = len(dataset)
        dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        dropped = before - len(dataset)
        if dropped:
            lost = f"{dropped} of {before} pairs ({dataset_name}) have prompts of max_length={args.max_length} tokens or more"
            if dropped == before:
                raise UserError(
                    f"{lost}: none is left. Raise max_length, or prepare the data with the same max_length"
                )
            logger.warning("%s and are left out", lost)
        return dataset


class MarginCallback(TrainerCallback):
    """Says when preferences are not learnt, or are learnt so well that nothing is left to learn."""

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Judge the last margins."""
        rows = [row for row in state.log_history if "rewards/margins" in row]
        if not state.is_world_process_zero or len(rows) < 5:
            return
        last = rows[-max(2, round(len(rows) * JUDGED_SHARE)) :]
        message = judge_margins([r["rewards/margins"] for r in last], [r["rewards/accuracies"] for r in last])
        if message:
            logger.warning(message)


def judge_margins(margins: list[float], accuracies: list[float]) -> str | None:
    """Say what is wrong with the reward margins at the end of a run, or return None.

    Args:
        margins: chosen minus rejected reward, of the last lines of the log.
        accuracies: share of pairs whose chosen reward is larger.
    """
    margin, accuracy = sum(margins) / len(margins), sum(accuracies) / len(accuracies)
    if abs(margin) < 0.02:
        return (
            f"the reward margin has not moved ({margin:.3f}): the model has learnt no preference. Raise learning_rate, "
            "train longer, or look whether chosen and rejected answers differ"
        )
    if margin < 0:
        return f"the reward margin is {margin:.3f}: the model prefers rejected answers; are the two columns swapped?"
    if accuracy > 0.995 and margin > 5:
        return (
            f"the reward margin has saturated ({margin:.1f}, accuracy {accuracy:.3f}): the loss teaches nothing more. "
            "Train for fewer steps, lower learning_rate, or raise beta"
        )
    return None


def set_up(settings: Mapping[str, Any]) -> TrainingSetup:
    """Train on pairs of answers."""
    return TrainingSetup(
        "Direct preference optimisation",
        DPO_ARGUMENTS,
        DogeDPOTrainer,
        columns=("chosen",),
        callbacks=(MarginCallback,),
    )


if __name__ == "__main__":
    run_script("dpo")
