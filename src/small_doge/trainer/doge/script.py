"""The command line that the scripts of all stages share."""

import sys
from collections.abc import Sequence

from small_doge.trainer.recipe import parse_command_line
from small_doge.trainer.runner import train_stage
from small_doge.utils.errors import told_errors
from small_doge.utils.logging import get_logger, quiet_libraries


def run_script(stage: str, argv: Sequence[str] | None = None) -> None:
    """Run a stage with the words of a command line; bad input is answered by one message."""
    quiet_libraries()
    with told_errors("training", lambda message: get_logger(__name__).error("%s", message)):
        config, overrides = parse_command_line(sys.argv[1:] if argv is None else argv)
        train_stage(stage, config, overrides)
