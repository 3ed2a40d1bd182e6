"""A session of ONNX Runtime whose inputs and outputs are numpy arrays that stay bound between calls, so that nothing is copied."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..utils.extras import needs_extra


# Outputs of the graph, of which a call asks for one.
LOGITS, HIDDEN_STATES = "logits", "hidden_states"
NUM_KEYS = "num_keys"  # an input that older exports do not have


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, with its warnings turned off.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    with needs_extra("an exported model", "export"):
        import onnxruntime
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


@dataclass
class Buffers:
    """Inputs and the output of one shape, with the values that bind them."""

    ids: np.ndarray
    positions: np.ndarray
    keep: np.ndarray
    num_keys: np.ndarray
    output: np.ndarray
    values: list[Any]


@dataclass
class Binding:
    """What is bound for a range of slots and an output: their caches, and the buffers of the last shape."""

    binding: Any
    caches: list[Any]
    buffers: Buffers | None = None


class OnnxSession:
    """An exported graph in a session, and what is bound to it.

    Args:
        graph: file or bytes of the model.
        num_layers: L, the layers of the model.
        vocab_size: V, the number of token ids.
        threads: processor threads of an operator.

    Attributes:
        widths: size of a row of each output that a call may ask for.
        has_num_keys: whether the graph takes the number of keys of each slot.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: str | bytes, num_layers: int, vocab_size: int, threads: int) -> None:
        self.runtime = import_onnxruntime()
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = self.runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.num_layers = num_layers
        self.widths = {LOGITS: vocab_size}
        self.widths |= {o.name: o.shape[-1] for o in self.session.get_outputs() if o.name == HIDDEN_STATES}
        self.has_num_keys = NUM_KEYS in {o.name for o in self.session.get_overridable_initializers()}
        self.bindings: dict[tuple[int, int, str], Binding] = {}

    def bind(
        self, cache: np.ndarray, first: int, count: int, num_new: int, num_kept: int, wanted: str
    ) -> tuple[Binding, Buffers]:
        """Bind the caches of some slots in place, and buffers for new tokens, unless they are bound already.

        Args:
            cache: keys and values [2 L, S, K, n, d] of all slots; the same array until `unbind` is called.
            first: the first of the slots.
            count: how many they are.
            num_new: T, the new tokens of each.
            num_kept: rows of logits that are wanted of each.
            wanted: the output.
        """
        bound = self.bindings.get((first, count, wanted))
        if bound is None:
            bound = self.bindings[first, count, wanted] = self._bind_caches(cache[:, first : first + count])
        buffers = bound.buffers
        if buffers is None or buffers.positions.shape[1] != num_new or len(buffers.keep) != num_kept:
            bound.buffers = None  # an interruption must not leave buffers that are no longer bound
            buffers = bound.buffers = self._bind_buffers(bound.binding, count, num_new, num_kept, wanted)
        return bound, buffers

    def unbind(self) -> None:
        """Forget the caches and buffers: they are replaced."""
        self.bindings = {}

    def take_in(self, scores: np.ndarray) -> Any:
        """Copy scores [S, L K, n] into a value of the runtime."""
        return self.runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(scores))

    def run(self, bound: Binding, scores: Any) -> Any:
        """Run the graph on what is bound; return the new scores as a value of the runtime."""
        bound.binding.bind_ortvalue_input("past_scores", scores)
        bound.binding.bind_output("present_scores")
        self.session.run_with_iobinding(bound.binding)
        return self.runtime.OrtValue(bound.binding.get_outputs_as_ortvaluevector()[2 * self.num_layers + 1])

    def _bind_caches(self, cache: np.ndarray) -> Binding:
        """Bind keys and values as inputs and outputs."""
        binding, caches = self.session.io_binding(), []
        for index in range(2 * self.num_layers):
            name = f"{'value' if index % 2 else 'key'}.{index // 2}"
            value = self.runtime.OrtValue.ortvalue_from_numpy(cache[index])
            binding.bind_ortvalue_input(f"past_{name}", value)
            binding.bind_ortvalue_output(f"present_{name}", value)
            caches.append(value)
        return Binding(binding, caches)

    def _bind_buffers(self, binding: Any, count: int, num_new: int, num_kept: int, wanted: str) -> Buffers:
        """Bind new buffers for the other inputs, the scores excepted, and for the output that is wanted."""
        ids, positions = np.zeros((2, count, num_new), dtype=np.int64)
        keep, num_keys = np.zeros(num_kept, dtype=np.int64), np.zeros(count, dtype=np.int64)
        num_rows = num_kept if wanted == LOGITS else num_new
        output = np.zeros((count, num_rows, self.widths[wanted]), dtype=np.float32)
        buffers = (ids, positions, keep, num_keys, output)
        *inputs, result = values = [self.runtime.OrtValue.ortvalue_from_numpy(array) for array in buffers]
        for name, value in zip(("input_ids", "position_ids", "logits_to_keep", NUM_KEYS), inputs, strict=True):
            if name != NUM_KEYS or self.has_num_keys:
                binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(wanted, result)
        return Buffers(*buffers, values)
