"""Errors that are meant for the person at the keyboard, and how commands end with any."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


DEBUG = "SMALL_DOGE_DEBUG"
ISSUES = "https://github.com/SmallDoges/small-doge/issues"


class UserError(ValueError):
    """Bad input, or a state of the machine that the user can mend; the message says what is wrong and what to do.

    Commands print it without a traceback.
    """


class DivergedError(UserError):
    """The loss is no longer a number."""


@contextmanager
def told_errors(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """End a command with the message of a `UserError` alone, and with a traceback for anything else, which is our fault.

    Args:
        what: is being done, for the line before a traceback.
        say: prints a message.
    """
    try:
        yield
    except (UserError, ModuleNotFoundError) as error:
        from .extras import explain_missing  # which needs this module

        told = explain_missing(error, what) if isinstance(error, ModuleNotFoundError) else error
        if not isinstance(told, UserError):
            _blame_ourselves(what, error, say)
            raise
        if os.environ.get(DEBUG):
            raise
        say(str(told))
        sys.exit(1)
    except Exception as error:
        _blame_ourselves(what, error, say)
        raise


def _blame_ourselves(what: str, error: Exception, say: Callable[[str], None]) -> None:
    say(
        f"{what} failed with {type(error).__name__}, which it should not, whatever it was given. What follows says where; "
        f"please report it, with the command, at {ISSUES}"
    )
