"""Errors that are meant for the person at the keyboard."""


class UserError(ValueError):
    """Bad input, or a state of the machine that the user can mend; the message says what is wrong and what to do.

    Commands print it without a traceback.
    """


class DivergedError(UserError):
    """The loss is no longer a number."""


# What commands show as a plain message: our own errors, and `ValueError`, which the library raises for bad input.
SHOWN_PLAINLY = (UserError, ValueError)
