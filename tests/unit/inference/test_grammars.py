"""Grammars: an output follows them, bad ones are refused before any work, and none is compiled for long."""

import time

import pytest

from small_doge.inference.grammars import Grammars
from small_doge.inference.sampling_options import SamplingOptions
from small_doge.utils.errors import UserError


pytest.importorskip("llguidance")


@pytest.fixture
def model(make_engine, tiny_tokenizer):
    return make_engine(tokenizer=tiny_tokenizer, vocab_size=len(tiny_tokenizer))


def test_an_output_follows_its_grammar(model):
    for seed in range(3):
        text = model.generate("Hi", grammar='start: "yes" | "no"', temperature=1.0, seed=seed, max_new_tokens=20)
        assert text in ("yes", "no")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"grammar": "start: ("}, "grammar is not a usable grammar"),
        ({"grammar": ""}, "must be the text of a grammar"),
        ({"grammar": 3}, "must be the text of a grammar"),
        ({"grammar": 'start: "a"', "json_schema": {}}, "can't both"),
        ({"grammar": 'start: "a"\n' + "#" * 70_000}, "the limit is 65536"),
        ({"json_schema": "{"}, "json_schema is not a usable JSON schema"),
        ({"json_schema": "[" * 10_000}, "json_schema is not a usable JSON schema"),
        ({"json_schema": "3"}, "json_schema is not a usable JSON schema"),
        ({"json_schema": {"type": "integer", "multipleOf": 999_983}}, "Leave multipleOf out"),
        ({"json_schema": '{"type": "integer", "multiple\\u004ff": 999983}'}, "Leave multipleOf out"),
        ({"json_schema": {"type": "number", "multipleOf": 1e300}}, "Leave multipleOf out"),
        ({"json_schema": {"allOf": [{"type": "integer", "multipleOf": p} for p in (97, 89, 83)]}}, "multiple"),
        ({"json_schema": {"allOf": [{"type": "string", "pattern": f"^.*a.{{{n}}}$"} for n in range(30)]}}, "patterns"),
        ({"json_schema": {"allOf": [{"oneOf": [{"const": n} for n in range(9)]} for _ in range(9)]}}, "json_schema"),
    ],
)
def test_what_can_not_be_compiled_is_refused_at_once(model, options, problem):
    start = time.perf_counter()
    with pytest.raises(UserError, match=problem) as found:
        model.submit([1, 2], **options)
    assert time.perf_counter() - start < 5 and len(str(found.value)) < 600
    assert not model.scheduler.waiting


@pytest.mark.parametrize("multiple", [5, 0.01, 0.25, 1000])
def test_ordinary_multiples_can_be_asked_for(model, multiple):
    schema = {"type": "number", "multipleOf": multiple, "minimum": 0, "maximum": 5000}
    assert model.submit([1], json_schema=schema).finish_reason is None


def test_a_grammar_that_leaves_no_token_ends_its_request_alone(model, tiny_tokenizer):
    blocked = dict.fromkeys(range(len(tiny_tokenizer)), -1e6)
    good = model.submit([5, 6], max_new_tokens=5, ignore_eos=True)
    bad = model.submit([5, 6], grammar='start: "yes"', stop_token_ids=[])
    bad.sampler.matcher.consume_tokens(tiny_tokenizer("no", add_special_tokens=False)["input_ids"])
    with pytest.raises(UserError, match="grammar"):
        list(model.follow(bad))
    assert bad.finish_reason == "error" and len(list(model.follow(good))) == 5
    assert model.generate("Hi", grammar='start: "yes"', logit_bias=blocked) == "yes"  # a bias is not a ban


def test_a_grammar_is_compiled_once_and_each_request_has_its_own_state(tiny_tokenizer):
    grammars = Grammars(tiny_tokenizer, len(tiny_tokenizer), [tiny_tokenizer.eos_token_id])
    options = SamplingOptions(grammar='start: "yes"')
    first, second = grammars.match(options), grammars.match(options)
    ids = tiny_tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert first.consume_tokens(ids) and first.is_accepting() and not second.is_accepting()
    assert second.consume_tokens(ids) and grammars.compile.cache_info().misses == 1
