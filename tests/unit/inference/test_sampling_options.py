"""Sampling options: every value of every kind is taken as meant, or refused, and harms no other request."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from small_doge.inference.sampling_options import SamplingOptions
from small_doge.utils.errors import UserError


PROMPTS = [[5, 17, 3], [9, 2, 44, 8, 1], [60, 61, 62, 63, 64, 65, 66, 67, 68, 69]]
SETTINGS = {"max_new_tokens": 9, "ignore_eos": True}
WRONG = {
    "object": object(),
    "text": "x",
    "bytes": b"x",
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": float("-inf"),
    "minus one": -1,
    "half": 0.5,
    "huge": 10**400,
    "yes": True,
    "none": None,
    "list": [object()],
    "nested": [[1]],
    "list of nan": [float("nan")],
    "map": {"a": "b"},
    "map of nan": {1: float("nan")},
    "map of inf": {1: float("-inf")},
    "map to none": {1: None},
    "numpy nan": np.float32("nan"),
    "array": np.zeros((2, 2)),
    "tensor": torch.zeros(3),
    "set": {1.5},
    "function": len,
}


@pytest.mark.parametrize("name", [f.name for f in fields(SamplingOptions)])
def test_every_option_of_every_wrong_kind_is_refused_or_harmless(engine, name):
    expected = list(engine.stream(PROMPTS[0], **SETTINGS))
    for kind, value in WRONG.items():
        try:
            request = engine.submit(PROMPTS[1], **{**SETTINGS, name: value})
        except UserError as error:
            assert name in str(error), kind  # noqa: PT017 (either may happen)
        else:
            small = request.options.max_new_tokens < 10
            assert all(token.id >= 0 for token in engine.follow(request)) if small else engine.cancel(request) is None
        assert list(engine.stream(PROMPTS[0], **SETTINGS)) == expected, kind
    assert not engine.scheduler.running and not engine.scheduler.waiting and engine.scheduler.prefilling is None


RIGHT = {
    "max_new_tokens": [np.int64(3), torch.tensor(3), np.array(3)],
    "temperature": [np.float32(0.5), torch.tensor(0.5), 1],
    "stop_token_ids": [np.array([3, 4]), torch.tensor([3]), (1, 2), {5}, None],
    "ignore_eos": [np.bool_(True)],
    "seed": [np.uint32(7), 2**63],
    "logit_bias": [{"5": 1}, {np.int64(5): np.float32(1)}, None],
    "json_schema": ["true", {}],
    "stop": ["a", ["a"], None],
}


@pytest.mark.parametrize("name", RIGHT)
def test_numbers_of_other_libraries_and_of_json_are_numbers(engine, name):
    for value in RIGHT[name]:
        assert list(engine.stream(PROMPTS[0], **{"max_new_tokens": 3, name: value}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature=-1 must be a number of at least 0"),
        ({"top_p": 1.5}, "top_p=1.5 must be a number from 0 to 1"),
        ({"top_p": 0}, "top_p=0 leaves no token"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1 must be a whole number of at least 0"),
        ({"min_p": float("nan")}, "min_p=nan must be"),
        ({"stop": [""]}, "stop holds an empty text"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(UserError, match=message):
        SamplingOptions(**options)


def test_a_grammar_and_options_that_leave_no_token_are_an_error(engine):
    with pytest.raises(UserError, match="json_schema"):
        engine.submit(PROMPTS[0], json_schema={"type": "nonsense"})
    assert list(engine.stream(PROMPTS[0], logit_bias=dict.fromkeys(range(512), -1000000.0), **SETTINGS))


def test_single_options_replace_those_of_a_base():
    base = SamplingOptions(temperature=0.5, top_k=3)
    assert SamplingOptions.from_names({"top_k": 4}, base) == SamplingOptions(temperature=0.5, top_k=4)
    with pytest.raises(UserError, match="top_k=-1"):
        SamplingOptions.from_names({"top_k": -1}, base)


def test_every_option_has_a_help_text_that_is_a_sentence():
    for field in fields(SamplingOptions):
        text = field.metadata["help"]
        assert text[0].isupper() and text.endswith("."), field.name
