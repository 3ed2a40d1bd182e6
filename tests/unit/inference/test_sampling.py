"""Drawing tokens: every option does what it says."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList
from transformers.generation import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from small_doge.inference.sampling import Sampler, SamplingOptions
from small_doge.utils.errors import UserError


def draw_many(logits, count=4000, **options):
    sampler = Sampler(SamplingOptions(seed=1, **options), [], len(logits))
    return Counter(sampler.sample(logits).id for _ in range(count))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.3, 3),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.2, 1),
    min_p=st.floats(0, 0.5),
    penalty=st.floats(0.5, 2),
)
def test_probabilities_are_those_of_transformers(seed, temperature, top_k, top_p, min_p, penalty):
    logits = np.random.default_rng(seed).normal(0, 2, 12).astype(np.float32)
    prompt = [1, 5]
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)])
    if top_k:
        processors.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(TopPLogitsWarper(top_p))
    if min_p > 0:
        processors.append(MinPLogitsWarper(min_p))
    wanted = processors(torch.tensor([prompt]), torch.from_numpy(logits)[None]).softmax(-1)[0].numpy()

    class Fixed:
        """Gives the middle of each of many equal slices, so that counts are probabilities."""

        def __init__(self):
            self.values = iter((np.arange(4000) + 0.5) / 4000)

        def random(self):
            return next(self.values)

    options = SamplingOptions(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    sampler = Sampler(options, prompt, 12)
    sampler.random = Fixed()
    adjusted = sampler._adjust(logits)
    counts = np.bincount([sampler._pick(adjusted) for _ in range(4000)], minlength=12) / 4000
    assert np.abs(counts - wanted).max() < 2e-3


def test_penalties_count_what_was_written():
    logits = np.array([2.0, 1.9, 1.8, 0.0], dtype=np.float32)
    sampler = Sampler(SamplingOptions(presence_penalty=0.15), [], 4)
    assert [sampler.sample(logits).id for _ in range(4)] == [0, 1, 0, 0]
    sampler = Sampler(SamplingOptions(frequency_penalty=0.15), [], 4)
    assert [sampler.sample(logits).id for _ in range(4)] == [0, 1, 0, 2]


def test_bias_bans_and_forces():
    logits = np.zeros(5, dtype=np.float32)
    logits[2] = 5
    assert set(draw_many(logits, temperature=1.0, logit_bias={2: -100.0})) == {0, 1, 3, 4}
    assert set(draw_many(logits, logit_bias={"4": 100})) == {4}
    with pytest.raises(UserError, match="logit_bias names token 9"):
        Sampler(SamplingOptions(logit_bias={9: 1.0}), [], 5)


def test_same_seed_gives_the_same_and_none_another():
    logits = np.zeros(1000, dtype=np.float32)

    def draw(seed):
        sampler = Sampler(SamplingOptions(temperature=1.0, seed=seed), [], 1000)
        return [sampler.sample(logits).id for _ in range(8)]

    assert draw(3) == draw(3) != draw(4)
    assert draw(None) != draw(None)
