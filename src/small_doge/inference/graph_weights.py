"""Weights in the exported graph: as float32, or quantised in blocks."""

from dataclasses import dataclass

import numpy as np

from .graph_builder import MICROSOFT, GraphBuilder
from .quantization import QuantizedMatrix, quantize


ACCURACY_LEVEL = 4  # MatMulNBits rounds activations to 8 bits as well, which is several times faster


@dataclass
class WeightFormat:
    """How the weights of an exported model are stored.

    Attributes:
        bits: bits of the projections; None for float32.
        head_bits: bits of the embedding and the head; None for float32.
        block_size: weights that share a scale, where the width is a multiple of it; 32 elsewhere.
    """

    bits: int | None = None
    head_bits: int | None = None
    block_size: int = 32


# By measurement (benchmarks/results): larger blocks are faster and cost 8 bits next to nothing, but 4 bits half as much
# quality again; embedding and head are most of a small model, and may have as few bits as the rest.
WEIGHT_FORMATS = {"none": WeightFormat(), "int8": WeightFormat(8, 8, 128), "int4": WeightFormat(4, 4, 32)}


class GraphWeights:
    """Adds weights, and the nodes that multiply by them, to a graph.

    Args:
        builder: of the graph.
        state: the model's weights by name, float32.
        weight_format: how to store them.

    Attributes:
        rounded: the float32 values that the quantised weights stand for, by name.
    """

    def __init__(self, builder: GraphBuilder, state: dict[str, np.ndarray], weight_format: WeightFormat) -> None:
        self.builder = builder
        self.state = state
        self.format = weight_format
        self.quantized: dict[str, QuantizedMatrix] = {}
        self.rounded: dict[str, np.ndarray] = {}

    def linear(self, x: str, name: str, layers: list[str], bits: int | None) -> str:
        """Multiply x [..., K] by the weights [N, K] of linear layers, stacked along N, and add their biases."""
        b = self.builder
        weight = np.concatenate([self.state[f"{layer}.weight"] for layer in layers])
        has_bias = f"{layers[0]}.bias" in self.state
        bias = (
            [b.weight(f"{name}.bias", np.concatenate([self.state[f"{layer}.bias"] for layer in layers]))]
            if has_bias
            else []
        )
        if bits is None:
            product = b.add("MatMul", [x, b.weight(f"{name}.weight", weight.T)])
            return b.add("Add", [product, *bias]) if bias else product
        matrix = self._quantize(name, layers, bits)
        return b.add(
            "MatMulNBits",
            [x, f"{name}.packed", f"{name}.scales", *(["", "", *bias] if bias else [])],
            domain=MICROSOFT,
            N=len(weight),
            K=matrix.width,
            bits=bits,
            block_size=matrix.block_size,
            accuracy_level=ACCURACY_LEVEL,
        )

    def embedding(self, name: str, ids: str) -> str:
        """Look up rows of a table [N, D] by their indices."""
        b, bits = self.builder, self.format.head_bits
        if bits is None:
            return b.add("Gather", [b.weight(f"{name}.table", self.state[f"{name}.weight"]), ids])
        matrix = self._quantize(name, [name], bits)
        rows = b.add(
            "GatherBlockQuantized",
            [b.add("Reshape", [f"{name}.packed", b.integers(len(matrix.packed), -1)]), ids, f"{name}.scales"],
            domain=MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            bits=bits,
            block_size=matrix.block_size,
        )
        if matrix.width % matrix.block_size == 0:
            return rows
        return b.add("Slice", [rows, b.integers(0), b.integers(matrix.width), b.integers(-1)])

    def head(self, x: str, name: str) -> None:
        """Multiply x [..., D] by the table [V, D] of a name, to the output `logits`."""
        b, bits = self.builder, self.format.head_bits
        if bits is None:
            table = b.weight(f"{name}.table", self.state[f"{name}.weight"])
            b.add("FusedMatMul", [x, table], ["logits"], domain=MICROSOFT, transB=1)
            return
        self.linear(x, name, [name], bits)
        b.nodes[-1].output[0] = "logits"

    def _quantize(self, name: str, layers: list[str], bits: int) -> QuantizedMatrix:
        """Store the weights of linear layers in blocks, once, and record the values that they stand for."""
        if name not in self.quantized:
            matrices = [self.state[f"{layer}.weight"] for layer in layers]
            block_size = next(
                size for size in (self.format.block_size, 64, 32) if matrices[0].shape[1] % size == 0 or size == 32
            )
            self.quantized[name] = matrix = quantize(np.concatenate(matrices), bits, block_size)
            self.builder.weight(f"{name}.packed", matrix.packed)
            self.builder.weight(f"{name}.scales", matrix.scales)
            ends = np.cumsum([len(m) for m in matrices])[:-1]
            for layer, rounded in zip(layers, np.split(matrix.dequantize(), ends), strict=True):
                self.rounded[f"{layer}.weight"] = rounded
        return self.quantized[name]
