"""What the stages' scripts have in common."""

from collections.abc import Callable, Sequence

from small_doge.trainer.recipe import parse_command_line
from small_doge.utils.errors import told_errors
from small_doge.utils.logging import get_logger, quiet_libraries


def run_script(run: Callable, argv: Sequence[str]) -> None:
    """Run a stage with the words of a command line; bad input is answered by one message."""
    quiet_libraries()
    with told_errors("training", lambda message: get_logger(__name__).error("%s", message)):
        run(*parse_command_line(argv))
