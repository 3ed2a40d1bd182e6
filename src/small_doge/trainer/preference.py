"""Direct preference optimisation on TRL's trainer."""

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer

from ..utils.errors import UserError
from ..utils.logging import get_logger
from .arguments import AdapterArguments, DataArguments, FineTuningDataArguments, StageSettings
from .on_trl import DogeOnTRL


logger = get_logger(__name__)

# Of all steps, those at the end over which margins are judged.
JUDGED_SHARE = 0.2


@dataclass
class DPOArguments(StageSettings, DPOConfig):
    """`trl.DPOConfig` with the defaults of this project."""

    precompute_ref_log_probs: bool = field(
        default=True, metadata={"help": "Log-probabilities of the reference once, before training; it is then let go."}
    )
    learning_rate: float = field(default=8e-5, metadata={"help": "Peak of the learning rate."})
    max_length: int | None = field(default=DataArguments.max_length, metadata={"help": "Tokens of a row."})
    beta: float = field(default=0.1, metadata={"help": "How strongly the model is held to the reference."})


DPO_ARGUMENTS: tuple[type, type, type] = (AdapterArguments, FineTuningDataArguments, DPOArguments)


class DogeDPOTrainer(DogeOnTRL, DPOTrainer):
    """`trl.DPOTrainer` with the promises of this project."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """As in TRL, which drops the pairs whose prompt alone fills a row without a word.

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
    """What is wrong with the reward margins at the end of a run, or None.

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
