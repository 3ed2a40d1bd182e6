"""`small-doge card`."""

from pathlib import Path
from typing import Annotated

import typer

from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import CARD, check_output_path, write_text
from ..utils.logging import quiet_libraries


def write_cards(
    recipes: Annotated[
        Path, typer.Argument(help="Folder of recipes: of several sizes, such as recipes/doge, or of one.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, with a folder for each model.")],
) -> None:
    """Write the model card of every size and stage that has a recipe.

    A card has the architecture, the data, the settings and the papers. Where the recipe's output_dir has a finished run, or
    the report of one, it has those figures too. The card of a trained model itself is updated by small-doge report.
    """
    require_extra("small-doge card", "train")
    from ..evaluation.recipe_cards import find_recipes, write_card

    quiet_libraries()
    check_output_path(output)
    written: dict[str, Path] = {}
    for size, stage, recipe in find_recipes(recipes):
        title, text = write_card(size, stage, recipe)
        if title in written:
            raise UserError(
                f"{recipe} and {written[title]} have cards of one name, {title}, which comes from output_dir: rename one"
            )
        written[title] = recipe
        write_text(output / title / CARD, text)
        typer.echo(output / title / CARD)
