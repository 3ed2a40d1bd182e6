"""What the stages' scripts have in common."""

import sys
from collections.abc import Callable, Sequence

from small_doge.trainer.recipe import parse_command_line
from small_doge.utils.errors import SHOWN_PLAINLY
from small_doge.utils.logging import get_logger, quiet_libraries


def run_script(run: Callable, argv: Sequence[str]) -> None:
    """Run a stage with the words of a command line; bad input is answered by one message."""
    quiet_libraries()
    try:
        run(*parse_command_line(argv))
    except SHOWN_PLAINLY as error:
        get_logger(__name__).error("%s", error)
        sys.exit(1)
