"""Builds ONNX graphs: nodes, constants and branches."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


class GraphBuilder:
    """Collects nodes and constants, and names them in order.

    Attributes:
        nodes: the nodes so far.
        weights: the constants so far, by name.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def add(
        self, op: str, inputs: list[str], outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """Add a node; return the name of its output, or a list of several.

        Args:
            op: type of the node.
            inputs: names of its inputs; "" for one that is left out.
            outputs: number of its outputs, or their names.
            domain: domain of the operator; "" for the ONNX standard.
            attributes: attributes of the node.
        """
        if isinstance(outputs, int):
            self.count += 1
            names = [f"{op}_{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        else:
            names = outputs
        self.nodes.append(
            helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}_{op}", domain=domain, **attributes)
        )
        return names[0] if len(names) == 1 else names

    def weight(self, name: str, value: Any, dtype: Any = None) -> str:
        """Add a constant, once under its name, and return the name."""
        if name not in self.weights:
            array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
            self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *values: int) -> str:
        """Add a constant vector of int64."""
        return self.weight("int_" + "_".join(str(v).replace("-", "m") for v in values), values, np.int64)

    def number(self, value: int) -> str:
        """Add a constant int64 without dimensions."""
        return self.weight(f"scalar_{str(value).replace('-', 'm')}", value, np.int64)

    def branch(self, outputs: list[str], first: int) -> onnx.GraphProto:
        """Move the nodes from index `first` on out of the graph, into a branch of an `If` with these outputs."""
        nodes, self.nodes = self.nodes[first:], self.nodes[:first]
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        return helper.make_graph(nodes, f"branch_{self.count}", [], infos)
