"""Models that score what a test decides, in the place of trained ones."""

import numpy as np
import pytest
from tests.conftest import build_tiny

from small_doge.inference import Engine, TorchEngine


SURE = 20.0  # a logit that outweighs all others together


class RiggedBackend:
    """Computes nothing: `choose` names the next token after the tokens so far, or None for equal chances."""

    chunk_size, num_slots, keep_window_size, max_length, nbytes, weight_nbytes = 16, 4, 1 << 20, None, 0, 0

    def __init__(self, vocab_size, choose):
        self.vocab_size = vocab_size
        self.choose = choose
        self.slots = [() for _ in range(self.num_slots)]
        self.num_computed = 0

    def prefill(self, slot, ids, keep=None):
        assert 0 < len(ids) <= self.chunk_size
        start = len(self.slots[slot])
        self.slots[slot] += tuple(ids.tolist())
        self.num_computed += len(ids)
        places = [len(ids) - 1] if keep is None else keep
        rows = np.stack([self.row(self.slots[slot][: start + place + 1]) for place in places])
        return rows[0] if keep is None else rows

    def row(self, tokens):
        row = np.zeros(self.vocab_size, dtype=np.float32)
        chosen = self.choose(tokens)
        if chosen is not None:
            row[chosen] = SURE
        return row

    def decode(self, count, ids):
        return np.stack([self.prefill(slot, ids[slot : slot + 1]) for slot in range(count)])

    def clear(self, slot):
        self.slots[slot] = ()

    def move(self, source, target):
        self.slots[target], self.slots[source] = self.slots[source], ()

    def save(self, slot):
        return np.array(self.slots[slot])

    def load(self, slot, state, length):
        self.slots[slot] = tuple(state[:length].tolist())

    def get_length(self, slot):
        return len(self.slots[slot])


def follow(texts, engine):
    """Choose, after any beginning of one of the texts, the token with which it goes on."""
    rows = [tuple(engine.encode(text)) for text in texts]

    def choose(tokens):
        return next(
            (row[len(tokens)] for row in rows if len(row) > len(tokens) and row[: len(tokens)] == tokens), None
        )

    return choose


@pytest.fixture
def rigged(tiny_tokenizer):
    """Make an engine that goes on with the given texts, and elsewhere finds all tokens alike."""

    def make(*texts, end_after=()):
        backend = RiggedBackend(len(tiny_tokenizer), lambda tokens: None)
        engine = Engine(backend, tiny_tokenizer, [tiny_tokenizer.eos_token_id], "rigged", trained_length=64)
        goes_on = follow(texts, engine)
        ends = {tuple(engine.encode(text)) for text in end_after}
        backend.choose = lambda tokens: tiny_tokenizer.eos_token_id if tokens in ends else goes_on(tokens)
        return engine

    return make


@pytest.fixture
def tiny_engine(tiny_tokenizer):
    return TorchEngine(build_tiny(vocab_size=len(tiny_tokenizer)), tiny_tokenizer, num_slots=4)
