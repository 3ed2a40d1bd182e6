"""Block quantization of weights to 8 or 4 bits, in the layout of ONNX Runtime's MatMulNBits and GatherBlockQuantized.

Symmetric: a block of `block_size` neighbours along the input dimension shares one float32 scale s; a weight is
s * (q - 2**(bits - 1)) with q an unsigned number of `bits` bits.
"""

from dataclasses import dataclass

import numpy as np

from ..utils.errors import UserError


@dataclass
class QuantizedMatrix:
    """A matrix [N, K], quantized in blocks.

    Attributes:
        packed: [N, blocks, block_size * bits / 8] uint8; of 4 bits the lower half of a byte comes first.
        scales: [N, blocks] float32.
        bits: 8 or 4.
        block_size: weights that share a scale.
        width: K; the last block is padded.
    """

    packed: np.ndarray
    scales: np.ndarray
    bits: int
    block_size: int
    width: int

    def dequantize(self) -> np.ndarray:
        """Compute the float32 matrix [N, K] that the quantized one stands for."""
        numbers = self.packed
        if self.bits == 4:
            numbers = np.stack((numbers & 15, numbers >> 4), axis=-1).reshape(*numbers.shape[:2], -1)
        centred = numbers.astype(np.float32) - 2 ** (self.bits - 1)
        return (centred * self.scales[..., None]).reshape(len(centred), -1)[:, : self.width]

    @property
    def nbytes(self) -> int:
        """Count the bytes of numbers and scales."""
        return self.packed.nbytes + self.scales.nbytes


# Shares of the largest magnitude that are tried as the largest number of a 4-bit block: a little clipping of the
# extremes makes the steps of all others finer.
CLIPPING = np.linspace(0.7, 1.0, 16, dtype=np.float32)
ROWS_AT_ONCE = 4096


def quantize(weight: np.ndarray, bits: int, block_size: int = 32) -> QuantizedMatrix:
    """Quantize a float matrix [N, K] to `bits` bits, with the scale for each block that gives the least squared error.

    Raises:
        UserError: `bits` is neither 4 nor 8, or a weight is not finite.
    """
    if bits not in (4, 8):
        raise UserError(f"bits={bits} must be 4 or 8")
    if not np.isfinite(weight).all():
        raise UserError("the weights hold NaN or infinity; train again, or export an earlier checkpoint")
    rows, width = weight.shape
    blocks = -(-width // block_size)
    padded = np.zeros((rows, blocks * block_size), dtype=np.float32)
    padded[:, :width] = weight
    padded = padded.reshape(rows, blocks, block_size)
    rounded = [_round_blocks(padded[i : i + ROWS_AT_ONCE], bits) for i in range(0, rows, ROWS_AT_ONCE)]
    numbers, scales = (np.concatenate(x) for x in zip(*rounded, strict=True))
    if bits == 4:
        numbers = numbers[..., 0::2] | (numbers[..., 1::2] << 4)
    return QuantizedMatrix(numbers, scales, bits, block_size, width)


def _round_blocks(blocks: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize blocks [n, blocks, block_size]; return numbers of the same shape, uint8, and scales [n, blocks]."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if bits == 8:
        scales = np.abs(blocks).max(axis=-1) / high
        return _to_numbers(blocks, scales, low, high), scales
    # Both signs are tried: the range reaches one further on the negative side.
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    best = np.full(blocks.shape[:2], np.inf, dtype=np.float32)
    scales = np.ones(blocks.shape[:2], dtype=np.float32)
    for share in CLIPPING:
        for end in (low, -high):
            candidate = extreme * share / end
            error = np.square(_round(blocks, candidate, low, high) * candidate[..., None] - blocks).sum(axis=-1)
            better = error < best
            best, scales = np.where(better, error, best), np.where(better, candidate, scales)
    return _to_numbers(blocks, scales, low, high), scales


def _round(blocks: np.ndarray, scales: np.ndarray, low: int, high: int) -> np.ndarray:
    """Divide blocks by their scales, and round to integers from `low` to `high`."""
    safe = np.where(scales == 0, 1, scales)[..., None]
    return np.clip(np.rint(blocks / safe), low, high)


def _to_numbers(blocks: np.ndarray, scales: np.ndarray, low: int, high: int) -> np.ndarray:
    """Round as `_round` does, and shift to unsigned numbers."""
    return (_round(blocks, scales, low, high) - low).astype(np.uint8)
