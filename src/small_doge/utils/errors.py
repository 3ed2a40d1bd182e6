"""Errors that are meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; its message says what and how. Commands print it without a traceback."""


class DivergedError(UserError):
    """The loss is no longer a number."""


# What commands show as a plain message: our own errors, and `ValueError`, which the library raises for bad input.
SHOWN_PLAINLY = (UserError, ValueError)
