"""How commands end: bad input with one message, our own faults with a traceback and where to report them."""

import numpy as np
import pytest

from small_doge.utils.errors import DEBUG, DivergedError, UserError, told_errors


def test_bad_input_ends_with_its_message_alone(monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    said = []
    for error in (UserError("lr=5 is too much"), DivergedError("the loss is nan")):
        with pytest.raises(SystemExit), told_errors("training", said.append):
            raise error
    assert said == ["lr=5 is too much", "the loss is nan"]


def test_debugging_shows_where_bad_input_was_found(monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(UserError), told_errors("training", print):
        raise UserError("lr=5 is too much")


def test_a_fault_of_ours_is_no_mistake_of_the_user_even_if_a_library_calls_it_a_value_error():
    said = []
    with pytest.raises(ValueError, match="mismatch"), told_errors("training", said.append):
        np.ones((2, 3)) @ np.ones((2, 3))  # "matmul: ... mismatch in its core dimension ... shapes"
    assert "training failed with ValueError" in said[0] and "issues" in said[0]


def test_user_errors_are_value_errors():
    assert issubclass(UserError, ValueError)
