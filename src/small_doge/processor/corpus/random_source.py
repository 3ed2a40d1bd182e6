"""Randomness that depends on its key alone, not on the process, the order of calls or Python's hash seed."""

import random
import zlib


HELD_OUT_SHARE = 10


def random_source(*key: object) -> random.Random:
    """Return a generator for this key."""
    return random.Random(repr(key))


def is_held_out(*key: object) -> bool:
    """Tell whether a combination (a sum, a question about a person) is kept out of all documents: one in ten."""
    return zlib.crc32(repr(key).encode()) % HELD_OUT_SHARE == 0


def is_held_out_sum(a: int, b: int) -> bool:
    """Tell whether the sum a + b is held out. The steps that larger sums are made of never are: digits, tens, tens and ones."""
    digits, tens = max(a, b) < 10, a % 10 == 0 and b % 10 == 0
    tens_and_ones = (a % 10 == 0 and b < 20) or (b % 10 == 0 and a < 20)
    return not (digits or tens or tens_and_ones) and is_held_out("+", a, b)
