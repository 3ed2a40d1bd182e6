"""The table of training stages: what commands, recipes, pipelines, plans and data preparation know of each.

To add a stage, write a module with a function `set_up` (see `TrainingSetup` in `small_doge.trainer.setup`) and add an
entry to `STAGES`, or call `register_stage`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


if TYPE_CHECKING:
    from .setup import TrainingSetup


@dataclass(frozen=True)
class Stage:
    """An entry of the table.

    Args:
        name: name of the stage in commands, recipes and folders.
        summary: what the stage does, in one sentence; the help text of its command.
        module: module that defines `set_up(settings) -> TrainingSetup`. It is imported when the stage is used, because
            TRL takes seconds to import.
        row_format: format of the rows that it trains on, one of `small_doge.processor.encoder.ROW_FORMATS`.
        starts_from: stage whose result it goes on from; None for a stage that trains new weights.
        recipe: place of its recipe beside the folder of a size such as `recipes/doge/Doge-20M`, with `{size}` for the
            name of that folder.
        aliases: other names that are understood.
        data_defaults: settings of the data that differ from those of its row format.
        variants: settings by which the module chooses another trainer, an example of each, beside none.
    """

    name: str
    summary: str
    module: str
    row_format: str
    starts_from: str | None = None
    recipe: str | None = None
    aliases: tuple[str, ...] = ()
    data_defaults: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ()

    def set_up(self, settings: Mapping[str, Any]) -> "TrainingSetup":
        """Import the stage's module and let it choose its trainer by the settings of a run."""
        return importlib.import_module(self.module).set_up(settings)

    def list_arguments(self) -> list[type]:
        """List the classes of the settings that the stage takes, those of its variants included."""
        return [cls for settings in ({}, *self.variants) for cls in self.set_up(settings).arguments]

    def find_recipe(self, folder: Path) -> Path | None:
        """Return the stage's recipe in a folder such as `recipes/tiny`, or beside one such as `recipes/doge/Doge-20M`."""
        places = [folder / f"{name}.yaml" for name in (self.name, *self.aliases)]
        if self.recipe is not None:
            places.append(folder.parent / self.recipe.format(size=folder.resolve().name))
        return next((place for place in places if place.is_file()), None)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "pretrain",
            "Pre-train a new model on texts.",
            "small_doge.trainer.doge.pretrain",
            row_format="text",
            recipe="{size}/config_full.yaml",
            aliases=("pt",),
        ),
        Stage(
            "sft",
            "Fine-tune a model on conversations, with a loss on the answers only.",
            "small_doge.trainer.doge.sft",
            row_format="conversation",
            starts_from="pretrain",
            recipe="{size}-Instruct/sft/config_full.yaml",
        ),
        Stage(
            "dpo",
            "Align a model with preferences: chosen answers over rejected ones.",
            "small_doge.trainer.doge.dpo",
            row_format="preference",
            starts_from="sft",
            recipe="{size}-Instruct/dpo/config_full.yaml",
        ),
        Stage(
            "distill",
            "Learn from a teacher: from its written reasoning, or from a live model that "
            "--teacher_model_name_or_path names.",
            "small_doge.trainer.doge.distill",
            row_format="conversation",
            starts_from="dpo",
            recipe="{size}-Reason/sft/config_full.yaml",
            data_defaults={"apply_thinking_template": True},
            variants=({"teacher_model_name_or_path": "a live teacher"},),
        ),
        Stage(
            "grpo",
            "Reinforce answers that are correct and have the required form.",
            "small_doge.trainer.doge.grpo",
            row_format="problem",
            starts_from="distill",
            recipe="{size}-Reason/grpo/config_full.yaml",
        ),
    )
}


def register_stage(stage: Stage) -> None:
    """Add a stage to the table.

    Raises:
        ValueError: its name or an alias is taken, or it goes on from a stage that is not there.
    """
    known = {name for other in STAGES.values() for name in (other.name, *other.aliases)}
    for name in (stage.name, *stage.aliases):
        if name in known:
            raise UserError(f"stage {name!r} is registered already")
    if stage.starts_from is not None:
        find_stage(stage.starts_from)
    STAGES[stage.name] = stage


def find_stage(name: str) -> Stage:
    """Return a stage by its name or an alias.

    Raises:
        ValueError: there is no such stage; the message names the nearest.
    """
    for stage in STAGES.values():
        if name in (stage.name, *stage.aliases):
            return stage
    raise UserError(unknown_name_message("stage", name, STAGES))


def guess_stage(config: str | Path) -> Stage:
    """Return the stage that a recipe's place tells, such as `.../sft/config_full.yaml`; pre-training otherwise."""
    path = Path(config)
    names = {name: stage for stage in STAGES.values() for name in (stage.name, *stage.aliases)}
    return next((names[part] for part in (path.stem, *reversed(path.parts)) if part in names), STAGES["pretrain"])


def list_names() -> str:
    """Return the names of all stages for help texts: "pretrain, sft, dpo, distill or grpo"."""
    *others, last = STAGES
    return f"{', '.join(others)} or {last}"
