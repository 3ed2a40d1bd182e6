"""Options that several commands take."""

from typing import Annotated

import typer


ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Exported folder, checkpoint or hub name; the demo's newest stage if none."),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Tokens to write at most.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")]
TopK = Annotated[int, typer.Option(min=0, help="Draw from the k likeliest tokens; 0 for all.")]
TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest that together have this probability.")
]
MinP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Drop tokens less likely than this share of the likeliest.")
]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: makes tokens that stand there already less likely.")]
Seed = Annotated[int | None, typer.Option(help="Of the drawing; another every time if none.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; a quick probe chooses if none.")]
