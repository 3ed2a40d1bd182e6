"""Groups of commands of which one runs when none is named."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """Runs its command `run` unless the first word names another, so that `eval MODEL` is `eval run MODEL`."""

    default_command = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the default command before words that name none."""
        first = args[0] if args else ""
        if first not in self.commands and first != "--help":
            self._refuse_near_miss(ctx, first)
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def _refuse_near_miss(self, ctx: Any, word: str) -> None:
        """End with the nearest command where a word can hardly be anything else."""
        near = get_close_matches(word, self.commands, n=1, cutoff=0.75)
        if near and not Path(word).exists():
            ctx.fail(f"No such command {word!r}, and no such folder. Did you mean {near[0]!r}?")
