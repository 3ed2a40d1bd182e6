"""Every stage from a folder of recipes, one after the other, each starting from what the one before left."""

import json
import platform
from collections.abc import Callable, Container, Sequence
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
from .arguments import NEW_MODEL_SETTINGS
from .checkpoints import discard_run
from .recipe import load_run, read_recipe
from .runner import train_stage
from .stages import STAGES


logger = get_logger(__name__)

TOKENIZER = "tokenizer"
# Settings whose entries are written with a dot, as those of one stage are.
MAPPINGS = {"model_overrides"}
TOKENIZER_SETTINGS = {"texts", "vocab_size", "max_digits", "model_max_length", "sample_bytes", "min_frequency", "seed"}


@dataclass(frozen=True)
class Step:
    """A stage of a pipeline.

    Args:
        name: `tokenizer`, or the name of a stage.
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
    """Find the stages that a folder has recipes for, in their order.

    Raises:
        ValueError: no such folder, or no recipe in it.
    """
    if not recipes.is_dir():
        raise UserError(f"--recipe {recipes}: there is no such folder")
    steps = []
    if (recipes / "tokenizer.yaml").is_file():
        steps.append(Step(TOKENIZER, recipes / "tokenizer.yaml", output / TOKENIZER))
    for name, stage in STAGES.items():
        path = stage.find_recipe(recipes)
        if path is not None:
            steps.append(Step(name, path, output / name))
    if not steps:
        files = ", ".join(f"{name}.yaml" for name in STAGES)
        raise UserError(f"--recipe {recipes}: there is none of tokenizer.yaml, {files}, nor a config_full.yaml")
    return steps


def choose_steps(steps: list[Step], wanted: Sequence[str] | None) -> list[Step]:
    """Choose the stages that are asked for; all if none is named.

    Raises:
        ValueError: a stage that is not there, with the near miss named.
    """
    names = _find_names(steps)
    for name in wanted or []:
        if name not in names:
            raise UserError(unknown_name_message("stage", name, [step.name for step in steps]))
    chosen = {names[name] for name in wanted or names}
    return [step for step in steps if step.name in chosen]


def _find_names(steps: list[Step]) -> dict[str, str]:
    """Return the name of each step by itself and by its aliases."""
    names = {alias: step.name for step in steps if step.name in STAGES for alias in STAGES[step.name].aliases}
    return names | {step.name: step.name for step in steps}


def split_overrides(overrides: dict[str, Any], steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Split settings by stage: `sft.learning_rate` is for one stage, `report_to` for all, `model_overrides` for new models.

    Raises:
        ValueError: a stage that is not there.
    """
    trained = [step.name for step in steps if step.name != TOKENIZER]
    by_stage: dict[str, dict[str, Any]] = {name: {} for name in trained}
    names = _find_names(steps)
    new = [name for name in trained if STAGES[name].starts_from is None]
    for name, value in overrides.items():
        stage, dot, setting = name.partition(".")
        if not dot or stage in MAPPINGS:
            for taker in new if stage in NEW_MODEL_SETTINGS and new else trained:
                by_stage[taker].setdefault(name, value)
        elif names.get(stage) in by_stage:
            by_stage[names[stage]][setting] = value
        else:
            raise UserError(unknown_name_message("stage in --" + name, stage, trained))
    return by_stage


def connect(steps: list[Step], overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add to the settings of each stage which result it goes on from; the first keeps the model that its recipe names."""
    folders = {step.name: str(step.folder) for step in steps}
    connected = {}
    for step in steps:
        if step.name == TOKENIZER:
            continue
        settings = {"output_dir": str(step.folder)}
        before = _find_start(step.name, folders)
        if before is not None:
            settings["model_name_or_path"] = folders[before]
        if TOKENIZER in folders and STAGES[step.name].starts_from is None:
            settings["tokenizer_name_or_path"] = folders[TOKENIZER]
        connected[step.name] = {**settings, **overrides[step.name]}
    return connected


def _find_start(name: str, present: Container[str]) -> str | None:
    """Return the nearest stage before this one that has a recipe."""
    before = STAGES[name].starts_from
    while before is not None and before not in present:
        before = STAGES[before].starts_from
    return before


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
        starts_over = (fresh and step.name == TOKENIZER) or settings.get(step.name, {}).get("overwrite")
        if step.done and not starts_over:
            say(f"[green]done already[/]: {step.name}, in {step.folder}")
        else:
            say(f"[bold]{step.name}[/] by {step.recipe}")
            if step.name == TOKENIZER:
                make_tokenizer(step)
            else:
                train_stage(step.name, step.recipe, settings[step.name])
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
    """Check what can be known to be wrong before the first stage starts."""
    if step.name == TOKENIZER:
        _read_tokenizer_recipe(step)
        return
    given = settings[step.name]
    load_run(STAGES[step.name], step.recipe, given)
    for other in steps:
        needed = str(other.folder) in (given.get("model_name_or_path"), given.get("tokenizer_name_or_path"))
        if needed and other not in chosen and not other.done:
            raise UserError(f"stage {step.name} goes on from {other.name}, which is not done: add it to --stages")


def read_facts(step: Step) -> dict[str, Any]:
    """Read what the stage says of itself, nothing for a tokenizer."""
    path = step.folder / FINISHED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_versions() -> dict[str, str]:
    """Read the versions of what the result depends on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("small-doge", "torch", "transformers", "trl", "datasets", "accelerate")
    }
