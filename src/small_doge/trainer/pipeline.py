"""Every stage from a folder of recipes, one after the other, each starting from what the one before left."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..processor.tokenizer import MADE_BY, read_texts, train_tokenizer
from ..utils.errors import UserError
from ..utils.files import whole_folder
from ..utils.logging import get_logger
from ..utils.paths import FINISHED
from ..utils.suggest import unknown_name_message
from .arguments import SFT_ARGUMENTS, STAGE_ARGUMENTS
from .checkpoints import discard_run
from .doge.distill import TEACHER, run_distillation
from .doge.pt import run_pretraining
from .doge.sft import run_sft
from .recipe import load_arguments, read_recipe


logger = get_logger(__name__)

TOKENIZER = "tokenizer"
# In their order: the file of a folder such as recipes/tiny, and the place beside a folder such as recipes/doge/Doge-20M.
PLACES = {
    "pretrain": ("pt.yaml", "{name}/config_full.yaml"),
    "sft": ("sft.yaml", "{name}-Instruct/sft/config_full.yaml"),
    "dpo": ("dpo.yaml", "{name}-Instruct/dpo/config_full.yaml"),
    "distill": ("distill.yaml", "{name}-Reason/sft/config_full.yaml"),
    "grpo": ("grpo.yaml", "{name}-Reason/grpo/config_full.yaml"),
}
STAGES = (TOKENIZER, *PLACES)
# Settings whose entries are written with a dot, as those of one stage are.
MAPPINGS = {"model_overrides"}
TOKENIZER_SETTINGS = {"texts", "vocab_size", "max_digits", "model_max_length", "sample_bytes", "min_frequency", "seed"}


@dataclass(frozen=True)
class Step:
    """A stage of a pipeline.

    Args:
        name: of `STAGES`.
        recipe: its file.
        folder: where it leaves its result.
    """

    name: str
    recipe: Path
    folder: Path

    @property
    def done(self) -> bool:
        """Whether its result is complete."""
        return (self.folder / (FINISHED if self.name != TOKENIZER else "tokenizer_config.json")).exists()


def find_steps(recipes: Path, output: Path) -> list[Step]:
    """The stages that a folder has recipes for, in their order.

    Raises:
        ValueError: no such folder, or no recipe in it.
    """
    if not recipes.is_dir():
        raise UserError(f"--recipe {recipes}: there is no such folder")
    steps = []
    if (recipes / "tokenizer.yaml").is_file():
        steps.append(Step(TOKENIZER, recipes / "tokenizer.yaml", output / TOKENIZER))
    for name, (file, beside) in PLACES.items():
        for path in (recipes / file, recipes.parent / beside.format(name=recipes.resolve().name)):
            if path.is_file():
                steps.append(Step(name, path, output / name))
                break
    if not steps:
        files = ", ".join(file for file, _ in PLACES.values())
        raise UserError(f"--recipe {recipes}: there is none of tokenizer.yaml, {files}, nor a config_full.yaml")
    return steps


def choose_steps(steps: list[Step], wanted: Sequence[str] | None) -> list[Step]:
    """Those stages that are asked for; all if none is named.

    Raises:
        ValueError: a stage that is not there, with the near miss named.
    """
    names = [step.name for step in steps]
    for name in wanted or []:
        if name not in names:
            raise UserError(unknown_name_message("stage", name, names))
    return [step for step in steps if not wanted or step.name in wanted]


def split_overrides(overrides: dict[str, Any], steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Settings by stage: `sft.learning_rate` is for one stage, `report_to` for all that train.

    Raises:
        ValueError: a stage that is not there.
    """
    trained = [step.name for step in steps if step.name != TOKENIZER]
    by_stage: dict[str, dict[str, Any]] = {name: {} for name in trained}
    for name, value in overrides.items():
        stage, dot, setting = name.partition(".")
        if not dot or stage in MAPPINGS:
            for settings in by_stage.values():
                settings.setdefault(name, value)
        elif stage in by_stage:
            by_stage[stage][setting] = value
        else:
            raise UserError(unknown_name_message("stage in --" + name, stage, trained))
    return by_stage


def connect(steps: list[Step], overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Overrides by stage that make each start from the result before it; the first keeps what its recipe names."""
    connected, before, tokenizer = {}, None, None
    for step in steps:
        if step.name == TOKENIZER:
            tokenizer = step.folder
            continue
        settings: dict[str, Any] = {"output_dir": str(step.folder)}
        if before is not None:
            settings["model_name_or_path"] = str(before)
        if tokenizer is not None and step.name == "pretrain":
            settings["tokenizer_name_or_path"] = str(tokenizer)
        connected[step.name] = {**settings, **overrides[step.name]}
        before = step.folder
    return connected


def run_pipeline(
    recipes: Path,
    output: Path,
    wanted: Sequence[str] | None = None,
    overrides: dict[str, Any] | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = logger.info,
    after: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Run the stages that are not done yet.

    Args:
        recipes: folder such as `recipes/tiny` or `recipes/doge/Doge-20M`.
        output: each stage leaves its result in a folder of its name here.
        wanted: stages to run; all if None.
        overrides: settings, of all stages or as `stage.setting` of one.
        fresh: start the wanted stages over.
        say: takes a line about each stage.
        after: called with each stage that is done, be it now or before.

    Returns:
        All stages of the folder of recipes, in their order.

    Raises:
        ValueError: recipes or settings that don't fit, before anything runs.
    """
    steps = find_steps(recipes, output)
    chosen = choose_steps(steps, wanted)
    settings = connect(steps, split_overrides(overrides or {}, steps))
    for step in chosen:
        _check(step, settings, steps, chosen)
    if fresh:
        for step in chosen:
            discard_run(step.folder)
    for step in chosen:
        if step.done and not (fresh and step.name == TOKENIZER):
            say(f"[green]done already[/]: {step.name}, in {step.folder}")
        else:
            say(f"[bold]{step.name}[/] by {step.recipe}")
            if step.name == TOKENIZER:
                make_tokenizer(step)
            else:
                find_runner(step.name)(step.recipe, settings[step.name])
        after(step)
    return steps


def make_tokenizer(step: Step) -> None:
    """Train a tokenizer by its recipe: `texts` names data sets, and other settings are those of `train_tokenizer`."""
    settings = _read_tokenizer_recipe(step)
    trained = train_tokenizer(read_texts(settings.pop("texts")), **settings)
    with whole_folder(step.folder, MADE_BY) as new:
        trained.save_pretrained(new)


def _read_tokenizer_recipe(step: Step) -> dict[str, Any]:
    settings = read_recipe(step.recipe)
    for name in settings:
        if name not in TOKENIZER_SETTINGS:
            raise UserError(unknown_name_message(f"setting in {step.recipe}", name, TOKENIZER_SETTINGS))
    if not isinstance(settings.get("texts"), list):
        raise UserError(f"{step.recipe}: texts must list the data sets to train on")
    return settings


def _check(step: Step, settings: dict[str, dict[str, Any]], steps: list[Step], chosen: list[Step]) -> None:
    """What can be known to be wrong before the first stage starts."""
    if step.name == TOKENIZER:
        _read_tokenizer_recipe(step)
        return
    given = settings[step.name]
    load_arguments(step.recipe, given, find_arguments(step.name, {**read_recipe(step.recipe), **given}))
    for other in steps:
        needed = str(other.folder) in (given.get("model_name_or_path"), given.get("tokenizer_name_or_path"))
        if needed and other not in chosen and not other.done:
            raise UserError(f"stage {step.name} goes on from {other.name}, which is not done: add it to --stages")


def find_arguments(stage: str, settings: dict[str, Any]) -> tuple[type, type, type]:
    """The classes of a stage's settings: of the model, the data and the training."""
    if stage in ("pt", "pretrain"):
        return STAGE_ARGUMENTS
    if stage == "sft" or (stage == "distill" and not settings.get(TEACHER)):
        return SFT_ARGUMENTS
    if stage == "dpo":
        from .preference import DPO_ARGUMENTS

        return DPO_ARGUMENTS
    if stage == "grpo":
        from .reasoning import GRPO_ARGUMENTS

        return GRPO_ARGUMENTS
    from .teacher import DISTILLATION_ARGUMENTS

    return DISTILLATION_ARGUMENTS


def find_runner(stage: str) -> Callable[[str | Path, dict[str, Any]], Path]:
    """What runs a stage by a recipe and settings that override it."""
    if stage == "dpo":
        from .doge.dpo import run_dpo

        return run_dpo
    if stage == "grpo":
        from .doge.grpo import run_grpo

        return run_grpo
    return {"pretrain": run_pretraining, "pt": run_pretraining, "sft": run_sft, "distill": run_distillation}[stage]


def read_facts(step: Step) -> dict[str, Any]:
    """What the stage says of itself, nothing for a tokenizer."""
    path = step.folder / FINISHED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_versions() -> dict[str, str]:
    """Of what the result depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("small-doge", "torch", "transformers", "trl", "datasets", "accelerate")
    }
