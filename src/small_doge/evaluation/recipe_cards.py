"""Model cards of recipes: what will be trained, on what, and the figures of a run that has finished."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from ..compat.names import rename_model_fields
from ..models import PRESETS, DogeConfig, DogeForCausalLM
from ..trainer.lineage import find_lineage
from ..trainer.recipe import read_recipe
from ..trainer.stages import STAGES, Stage
from ..utils.errors import UserError
from ..utils.markdown import write_table
from ..utils.model_card import build_model_card, list_facts, replace_figures
from ..utils.paths import FINISHED
from .model_report import ARCHITECTURE, REPORT
from .published import PUBLISHED


OWNER = "SmallDoge"  # on the hub


def find_recipes(folder: Path) -> Iterator[tuple[str, Stage, Path]]:
    """Find the size, the stage and the recipe of every model that a folder of sizes, or of one size, has recipes for.

    Raises:
        UserError: there is none.
    """
    pretrain = STAGES["pretrain"]
    sizes = [folder] if pretrain.find_recipe(folder) else sorted(p for p in folder.glob("*") if p.name in PRESETS)
    if not sizes:
        raise UserError(
            f"{folder} has no recipe of a model; name a folder such as recipes/doge or recipes/doge/Doge-20M"
        )
    for size in sizes:
        for stage in STAGES.values():
            recipe = stage.find_recipe(size)
            if recipe is not None:
                yield size.resolve().name, stage, recipe


def write_card(size: str, stage: Stage, recipe: Path) -> tuple[str, str]:
    """Write the card of a recipe; return the model's name and the text.

    Args:
        size: name of a preset, or of a folder whose recipe describes its model.
        stage: of the recipe.
        recipe: its file. Where its `output_dir` has a finished run or a report, the figures are those.
    """
    settings = read_recipe(recipe)
    run = Path(settings.get("output_dir", f"{size}-{stage.name}"))
    title = run.name
    settings.pop("output_dir", None)
    what = stage.set_up(settings).title
    card = build_model_card(title, what, {}, settings, f"{OWNER}/{title}", **find_lineage(settings))
    overrides = rename_model_fields(settings.get("model_overrides") or {})
    architecture = describe_architecture(settings.get("model_preset", size), json.dumps(overrides))
    return title, replace_figures(card, "\n\n".join(_list_parts(title, run, architecture))) or card


@cache
def describe_architecture(preset: str, overrides: str = "{}") -> dict[str, str]:
    """Describe the model of a preset, with its number of parameters; weights are not made for it.

    Args:
        preset: its name.
        overrides: JSON of the fields that are changed in it.
    """
    if preset not in PRESETS:
        return {}
    config = DogeConfig.from_preset(preset, **json.loads(overrides))
    with torch.device("meta"):
        count = DogeForCausalLM(config).num_parameters()
    return {"parameters": f"{count:,}"} | {name: f"{getattr(config, key):,}" for key, name in ARCHITECTURE.items()}


def _list_parts(title: str, run: Path, architecture: dict[str, str]) -> Iterator[str]:
    if architecture:
        yield write_table(("Model", "Value"), list_facts(architecture))
    if (run / REPORT).is_file():
        from .report_page import write_figures

        yield write_figures(json.loads((run / REPORT).read_text(encoding="utf-8")))
    elif (run / FINISHED).is_file():
        facts = json.loads((run / FINISHED).read_text(encoding="utf-8"))
        shown = {name: value for name, value in facts.items() if name not in ("stage", "finished_at")}
        yield write_table(("Result", "Value"), list_facts(shown))
    else:
        yield f"No run of this recipe has finished in `{run}`; write the card again when one has."
    for suite, models in PUBLISHED.items():
        if title in models:
            entry = models[title]
            yield f"Published scores of the {suite} suite, from {entry['source']}; they were not run again:"
            yield write_table(("Task", "Score"), [[name, str(score)] for name, score in entry["figures"].items()])
