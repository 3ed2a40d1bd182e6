"""Rounding to blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.inference.quantization import quantize


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), width=st.integers(1, 100), bits=st.sampled_from([4, 8]), seed=st.integers(0, 99))
def test_every_weight_is_within_half_a_step_unless_its_block_is_clipped(rows, width, bits, seed):
    weight = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    matrix = quantize(weight, bits)
    assert matrix.packed.shape == (rows, -(-width // 32), 32 * bits // 8)
    error = np.abs(matrix.dequantize() - weight)
    step = np.abs(matrix.scales).repeat(32, axis=1)[:, :width]
    assert np.sqrt(np.square(error).mean()) <= step.max() * 0.5
    if bits == 8:
        assert (error <= step * 0.5 * (1 + 1e-4)).all()


def test_four_bits_lose_less_than_the_nearest_scale_without_clipping():
    weight = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    ours = np.square(quantize(weight, 4).dequantize() - weight).mean()
    blocks = weight.reshape(64, -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / 7
    plain = np.square(np.rint(blocks / scale) * scale - blocks).mean()
    assert ours < 0.9 * plain


def test_zeros_stay_zeros():
    for bits in (4, 8):
        assert (quantize(np.zeros((3, 40), dtype=np.float32), bits).dequantize() == 0).all()


def test_bad_weights_and_bits_are_named():
    with pytest.raises(ValueError, match="bits=5 must be 4 or 8"):
        quantize(np.zeros((2, 2), dtype=np.float32), 5)
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize(np.full((2, 2), np.nan, dtype=np.float32), 8)
