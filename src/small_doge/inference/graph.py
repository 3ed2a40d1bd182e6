"""The ONNX graph of a Doge model: one graph for prompts and for single tokens.

The attention is ONNX Runtime's GroupQueryAttention, which keeps keys and values in buffers of fixed size and takes the
scores of dynamic mask attention as `attention_bias`. docs/inference.md names inputs, outputs and what a caller does.

Shapes: B batch, T new tokens, P slots filled before, S = P + T, L layers, K key-value heads, H heads, d head size,
D hidden size, V vocabulary, w keep_window_size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from transformers import ROPE_INIT_FUNCTIONS

from ..models import DogeConfig
from ..ops.cdmoe import candidate_pairs
from ..utils.errors import UserError
from .quantization import QuantizedMatrix, quantize


OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
ACCURACY_LEVEL = 4  # MatMulNBits rounds activations to 8 bits as well, which is several times faster
FREQUENCIES_THAT_STAY = ("default", "linear", "yarn", "llama3", "proportional")


@dataclass
class WeightFormat:
    """How the weights of an exported model are stored.

    Attributes:
        bits: of the projections; None for float32.
        head_bits: of the embedding and the head.
        block_size: neighbours that share a scale, where the width is a multiple of it; 32 elsewhere.
    """

    bits: int | None = None
    head_bits: int | None = None
    block_size: int = 32


# By measurement (benchmarks/results): larger blocks are faster and cost 8 bits next to nothing, but 4 bits half as much
# quality again; embedding and head are most of a small model, and may have as few bits as the rest.
WEIGHT_FORMATS = {"none": WeightFormat(), "int8": WeightFormat(8, 8, 128), "int4": WeightFormat(4, 4, 32)}


def set_accuracy(model: onnx.ModelProto, level: int) -> onnx.ModelProto:
    """Let the products with quantised weights round their activations to 8 bits (level 4) or not at all (level 1)."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = level
    return model


def compute_frequencies(model: Any, max_length: int | None) -> tuple[np.ndarray, float]:
    """Inverse frequencies [d / 2] for texts of up to `max_length` tokens, and the scale of the cosines.

    Args:
        model: whose rotation it is.
        max_length: the trained length if None.

    Raises:
        UserError: a rope type whose frequencies change with the length in another way than `dynamic`.
    """
    rotary, config = model.model.rotary_emb, model.config
    if rotary.rope_type == "dynamic":
        frequencies, scaling = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=max_length)
        return frequencies.float().numpy(), scaling
    if rotary.rope_type not in FREQUENCIES_THAT_STAY:
        raise UserError(
            f"rope_type={rotary.rope_type!r} changes its frequencies with the length and cannot be exported; train with "
            f"one of: {', '.join(FREQUENCIES_THAT_STAY)}, dynamic"
        )
    return rotary.original_inv_freq.float().numpy(), rotary.attention_scaling


class GraphBuilder:
    """Nodes and weights, named as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def add(
        self, op: str, inputs: list[str], outputs: int | list[str] = 1, domain: str = "", **attributes: Any
    ) -> Any:
        """A node; returns the name of its output, or a list of several."""
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
        """A constant, stored once under its name."""
        if name not in self.weights:
            array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
            self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.weight("int_" + "_".join(str(v).replace("-", "m") for v in values), values, np.int64)

    def number(self, value: int) -> str:
        """A constant int64 without dimensions."""
        return self.weight(f"scalar_{str(value).replace('-', 'm')}", value, np.int64)

    def branch(self, outputs: list[str], first: int) -> onnx.GraphProto:
        """Take the nodes from number `first` on out of the graph, as a branch of an `If`."""
        nodes, self.nodes = self.nodes[first:], self.nodes[:first]
        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        return helper.make_graph(nodes, f"branch_{self.count}", [], infos)


class DogeGraph:
    """Builds the graph of one model.

    Args:
        model: a `DogeForCausalLM`.
        weight_format: how to store the weights.
        max_length: of a text, for which the frequencies of a dynamic RoPE are fixed; None for no limit. Where it is
            no longer than the window, no key ever leaves, and the graph does without what that needs.
    """

    def __init__(self, model: Any, weight_format: WeightFormat, max_length: int | None) -> None:
        self.config: DogeConfig = model.config
        self.evicts = max_length is None or max_length > self.config.keep_window_size
        self.state = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
        self.format = weight_format
        self.frequencies, self.rope_scaling = compute_frequencies(model, max_length)
        self.quantized: dict[str, QuantizedMatrix] = {}
        self.rounded: dict[str, np.ndarray] = {}
        self.b = GraphBuilder()

    def build(self) -> onnx.ModelProto:
        """The whole model."""
        b, config = self.b, self.config
        self._prepare()
        hidden = self._rows("model.embed_tokens", "input_ids", self.format.head_bits)
        scores = b.add(
            "Split", ["past_scores"], config.num_hidden_layers, axis=1, num_outputs=config.num_hidden_layers
        )
        scores = [scores] if config.num_hidden_layers == 1 else scores
        present = []
        normed = self._norm(hidden, "model.layers.0.input_layernorm.weight")
        for index in range(config.num_hidden_layers):
            hidden, normed, kept = self._layer(index, hidden, normed, scores[index])
            present.append(kept)
        b.add("Concat", present, ["present_scores"], axis=1)
        chosen = b.add("Gather", [normed, "logits_to_keep"], axis=1)
        self._head(chosen)
        return self._finish()

    # What all layers share.

    def _prepare(self) -> None:
        b, config = self.b, self.config
        shape = b.add("Shape", ["input_ids"])
        batch, self.num_new = b.add("Split", [shape], 2, num_outputs=2)  # [1] each
        self.num_slots = b.add("Shape", ["past_scores"], start=2)  # [1]
        total = b.add("Add", [self.num_slots, self.num_new])
        total32 = b.add("Cast", [total], to=TensorProto.INT32)
        self.total = b.add("Squeeze", [total32])
        self.seqlens = b.add("Expand", [b.add("Sub", [total32, b.weight("one32", [1], np.int32)]), batch])
        # Cosines and sines of the present tokens alone, so that no table bounds the length.
        flat = b.add("Reshape", [b.add("Cast", ["position_ids"], to=TensorProto.FLOAT), b.integers(-1, 1)])
        angles = b.add("Mul", [flat, b.weight("inv_freq", self.frequencies[None])])
        self.cosines, self.sines = b.add("Cos", [angles]), b.add("Sin", [angles])
        if self.rope_scaling != 1.0:
            scaling = b.weight("rope_scaling", self.rope_scaling, np.float32)
            self.cosines, self.sines = (b.add("Mul", [x, scaling]) for x in (self.cosines, self.sines))
        tokens = b.add("Size", ["input_ids"])
        rows = b.add("Range", [b.number(0), tokens, b.number(1)])
        self.rotary_rows = b.add("Reshape", [rows, shape])
        width = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
        self.rotary_shape = b.add("Concat", [shape, b.integers(width)], axis=0)
        if self.evicts:
            self._prepare_eviction()
        else:
            self.query_shape = self._make_query_shape()

    def _make_query_shape(self) -> str:
        """[1, 1, T, 1]: the shape that gives a bias its queries."""
        return self.b.add("Concat", [self.b.integers(1, 1), self.num_new, self.b.integers(1)], axis=0)

    def _prepare_eviction(self) -> None:
        """What the layers need to know when keys leave; the step of a token before that needs nothing of it."""
        b, window = self.b, self.config.keep_window_size
        b.weight("minus_infinity", -np.inf, np.float32)
        self.is_single = b.add("Squeeze", [b.add("Equal", [self.num_new, b.integers(1)])])
        longest = b.add("ReduceMax", ["position_ids"], keepdims=0)
        self.all_stay = b.add("Less", [longest, b.number(window)])
        self.is_simple = b.add("And", [self.is_single, self.all_stay])
        begin = len(b.nodes)
        nothing = [*(b.integers(0) for _ in range(3)), b.weight("zero", 0.0, np.float32)]
        none = b.branch([b.add("Identity", [name]) for name in nothing], begin)
        begin = len(b.nodes)
        # The first position is the number of tokens before, of which a row holds w at most.
        first = b.add("Slice", ["position_ids", b.integers(0), b.integers(1), b.integers(1)])
        spare = b.add("Sub", [b.integers(window), b.add("Min", [first, b.integers(window)])])  # [B, 1]: free places
        most = b.add("Sub", [self.num_new, b.add("ReduceMin", [spare], keepdims=0)])
        leaving = b.add("Max", [most, b.integers(0)])
        index = b.add("Range", [b.number(0), b.add("Squeeze", [self.num_new]), b.number(1)])
        index = b.add("Reshape", [index, b.integers(1, 1, -1, 1)])
        is_full = b.add("LessOrEqual", [spare, b.integers(0)])
        effect = b.add("Where", [is_full, "minus_infinity", b.weight("zero", 0.0, np.float32)])
        effect = b.add("Unsqueeze", [effect, b.integers(2)])  # [B, 1, 1]
        some = b.branch([spare, leaving, index, effect], begin)
        self.spare, self.num_leaving, self.query_index, self.effect = b.add(
            "If", [self.is_simple], 4, then_branch=none, else_branch=some
        )

    # Weights.

    def _linear(self, x: str, name: str, parts: list[str], bits: int | None) -> str:
        """x [..., K] times the transpose of the named weights [N, K], one below the other, and their biases."""
        b = self.b
        weight = np.concatenate([self.state[f"{part}.weight"] for part in parts])
        has_bias = f"{parts[0]}.bias" in self.state
        bias = (
            [b.weight(f"{name}.bias", np.concatenate([self.state[f"{part}.bias"] for part in parts]))]
            if has_bias
            else []
        )
        if bits is None:
            product = b.add("MatMul", [x, b.weight(f"{name}.weight", weight.T)])
            return b.add("Add", [product, *bias]) if bias else product
        matrix = self._quantize(name, parts, bits)
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

    def _quantize(self, name: str, parts: list[str], bits: int) -> QuantizedMatrix:
        """Store the named weights in blocks, once, and remember what they stand for."""
        if name not in self.quantized:
            matrices = [self.state[f"{part}.weight"] for part in parts]
            block_size = next(
                size for size in (self.format.block_size, 64, 32) if matrices[0].shape[1] % size == 0 or size == 32
            )
            self.quantized[name] = matrix = quantize(np.concatenate(matrices), bits, block_size)
            self.b.weight(f"{name}.packed", matrix.packed)
            self.b.weight(f"{name}.scales", matrix.scales)
            ends = np.cumsum([len(m) for m in matrices])[:-1]
            for part, rounded in zip(parts, np.split(matrix.dequantize(), ends), strict=True):
                self.rounded[f"{part}.weight"] = rounded
        return self.quantized[name]

    def _rows(self, name: str, ids: str, bits: int | None) -> str:
        """Rows of a table [N, D] by their numbers."""
        b = self.b
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

    def _norm(self, x: str, name: str) -> str:
        gamma = self.b.weight(name, self.state[name])
        return self.b.add(
            "SimplifiedLayerNormalization", [x, gamma], axis=-1, epsilon=self.config.rms_norm_eps, stash_type=1
        )

    def _head(self, x: str) -> None:
        b, bits = self.b, self.format.head_bits
        name = "model.embed_tokens" if self.config.tie_word_embeddings else "lm_head"
        if bits is None:
            table = b.weight(f"{name}.table", self.state[f"{name}.weight"])
            b.add("FusedMatMul", [x, table], ["logits"], domain=MICROSOFT, transB=1)
            return
        self._linear(x, name, [name], bits)
        b.nodes[-1].output[0] = "logits"

    # A layer.

    def _layer(self, index: int, hidden: str, normed: str, scores: str) -> tuple[str, str, str]:
        """Residual stream, its next normalisation, and the scores of the slots."""
        config, prefix = self.config, f"model.layers.{index}"
        mixed, kept = self._attention(index, normed, scores)
        hidden, normed = self._add_and_norm(
            hidden, f"{prefix}.input_residual", mixed, f"{prefix}.post_attention_layernorm.weight"
        )
        mixed = self._feed_forward(index, normed)
        last = index == config.num_hidden_layers - 1
        following = "model.norm.weight" if last else f"model.layers.{index + 1}.input_layernorm.weight"
        hidden, normed = self._add_and_norm(hidden, f"{prefix}.post_attention_residual", mixed, following)
        return hidden, normed, kept

    def _add_and_norm(self, hidden: str, residual: str, update: str, norm: str) -> tuple[str, str]:
        b, scale = self.b, self.state[residual]
        if not (scale == 1).all():
            hidden = b.add("Mul", [hidden, b.weight(residual, scale)])
        names = b.add(
            "SkipSimplifiedLayerNormalization",
            [update, hidden, b.weight(norm, self.state[norm])],
            4,
            domain=MICROSOFT,
            epsilon=self.config.rms_norm_eps,
        )
        # Mean and deviation are not wanted.
        del b.nodes[-1].output[:]
        b.nodes[-1].output.extend([names[0], "", "", names[3]])
        return names[3], names[0]

    def _attention(self, index: int, x: str, scores: str) -> tuple[str, str]:
        b, config, prefix = self.b, self.config, f"model.layers.{index}.self_attn"
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        projections = [f"{prefix}.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        joint = self._linear(x, f"{prefix}.qkv", projections, self.format.bits)
        sizes = b.integers((heads + kv_heads) * size, kv_heads * size)
        query_key, value = b.add("Split", [joint, sizes], 2, axis=-1)
        each = b.add("Reshape", [query_key, b.integers(-1, heads + kv_heads, size)])
        norms = [self.state[f"{prefix}.q_norm.weight"]] * heads + [self.state[f"{prefix}.k_norm.weight"]] * kv_heads
        gamma = b.weight(f"{prefix}.qk_norm", np.stack(norms)[None])
        each = b.add("SimplifiedLayerNormalization", [each, gamma], axis=-1, epsilon=config.rms_norm_eps, stash_type=1)
        flat = b.add("Reshape", [each, self.rotary_shape])
        rotated = b.add(
            "RotaryEmbedding",
            [flat, self.rotary_rows, self.cosines, self.sines],
            domain=MICROSOFT,
            num_heads=heads + kv_heads,
            rotary_embedding_dim=size,
        )
        query, key = b.add("Split", [rotated, b.integers(heads * size, kv_heads * size)], 2, axis=-1)
        bias_rows, kept = self._attention_bias(index, value, scores)
        mixed, *_ = b.add(
            "GroupQueryAttention",
            [
                *(query, key, value, f"past_key.{index}", f"past_value.{index}", self.seqlens, self.total),
                *("", "", "", bias_rows),
            ],
            [f"{prefix}.mixed", f"present_key.{index}", f"present_value.{index}"],
            domain=MICROSOFT,
            num_heads=heads,
            kv_num_heads=kv_heads,
            do_rotary=0,
            scale=size**-0.5,
        )
        return self._linear(mixed, f"{prefix}.o_proj", [f"{prefix}.o_proj"], self.format.bits), kept

    def _attention_bias(self, index: int, value: str, past: str) -> list[str]:
        """The bias [B, 1 or H, T, S] of each query and slot, and the scores [B, K, S] after the step.

        A slot's score is that of its key, or -inf once the key has been evicted: scores are positive, so their absolute
        value ranks the dead last among those that may leave. Keys are in the order of the text, and TopK takes the first
        among equals, which is the oldest. As in `small_doge.ops.dynamic_mask_attention`, scores are
        compared in bfloat16.
        """
        b, prefix = self.b, f"model.layers.{index}.self_attn"
        weight = b.weight(f"{prefix}.dt", self.state[f"{prefix}.dt_proj.weight"])
        raw = b.add("FusedMatMul", [weight, value], domain=MICROSOFT, transB=1)  # [B, K, T]
        if f"{prefix}.dt_proj.bias" in self.state:
            bias = self.state[f"{prefix}.dt_proj.bias"][:, None]
            raw = b.add("Add", [raw, b.weight(f"{prefix}.dt_bias", bias)])
        factor = b.weight(f"{prefix}.A", self.state[f"{prefix}.A"][:, None])
        new = b.add("Exp", [b.add("Mul", [b.add("Softplus", [raw]), factor])])
        if not self.evicts:
            return self._stay(past, new, self.query_shape)
        first = len(b.nodes)
        simple = b.branch(self._one_row(b.add("Concat", [past, new], axis=2)), first)
        single = b.branch(self._evict_one(past, new), first)
        staying = b.branch(self._stay(past, new, self._make_query_shape()), first)
        several = b.branch(self._evict_several(past, new), first)
        many = b.branch(b.add("If", [self.all_stay], 2, then_branch=staying, else_branch=several), first)
        evicting = b.branch(b.add("If", [self.is_single], 2, then_branch=single, else_branch=many), first)
        return b.add("If", [self.is_simple], 2, then_branch=simple, else_branch=evicting)

    def _one_row(self, scores: str) -> list[str]:
        """The bias of a single query, and the scores."""
        return [self.b.add("Reshape", [self._spread(scores), self.b.integers(0, 0, 1, -1)]), scores]

    def _stay(self, past: str, new: str, query_shape: str) -> list[str]:
        """Any number of queries, all of which see all slots before them."""
        b = self.b
        scores = b.add("Concat", [past, new], axis=2)
        return [b.add("Expand", [b.add("Unsqueeze", [self._spread(scores), b.integers(2)]), query_shape]), scores]

    def _find_leaving(self, past: str, new: str) -> list[str]:
        """The scores of all slots, and the slots of the worst, the worst first."""
        b = self.b
        scores = b.add("Concat", [past, new], axis=2)
        rounded = b.add("Cast", [b.add("Abs", [scores])], to=TensorProto.BFLOAT16)
        ranked = b.add("Cast", [rounded], to=TensorProto.FLOAT)
        _, slots = b.add("TopK", [ranked, self.num_leaving], 2, axis=2, largest=0, sorted=1)
        return [scores, slots]

    def _evict_one(self, past: str, new: str) -> list[str]:
        """A single query per row, at which a key leaves if the row is full."""
        b = self.b
        scores, slots = self._find_leaving(past, new)
        worst = b.add("GatherElements", [scores, slots], axis=2)
        return self._one_row(b.add("ScatterElements", [scores, slots, b.add("Add", [worst, self.effect])], axis=2))

    def _evict_several(self, past: str, new: str) -> list[str]:
        """Several queries: a leaver goes at the first for which it is among as many of the worst as are too many."""
        b = self.b
        scores, slots = self._find_leaving(past, new)
        query = self.query_index  # [1, 1, T, 1]
        arrival = b.add("Unsqueeze", [b.add("Sub", [slots, self.num_slots]), b.integers(2)])
        is_here = b.add("LessOrEqual", [arrival, query])  # [B, K, T, leaving]
        rank = b.add("CumSum", [b.add("Cast", [is_here], to=TensorProto.INT32), b.number(3)])
        too_many = b.add(
            "Sub", [b.add("Add", [query, b.integers(1)]), b.add("Reshape", [self.spare, b.integers(-1, 1, 1, 1)])]
        )
        stays = b.add("Greater", [rank, b.add("Cast", [too_many], to=TensorProto.INT32)])
        not_gone = b.add("Cast", [b.add("Or", [stays, b.add("Not", [is_here])])], to=TensorProto.INT64)
        leaves_at = b.add("ReduceSum", [not_gone, b.integers(2)], keepdims=0)  # [B, K, leaving]
        never = b.add("Expand", [self.num_new, b.add("Shape", [scores])])
        leaves_at = b.add("ScatterElements", [never, slots, leaves_at], axis=2)  # [B, K, S]
        sees = b.add("Less", [query, b.add("Unsqueeze", [self._spread(leaves_at), b.integers(2)])])
        bias = b.add("Where", [sees, b.add("Unsqueeze", [self._spread(scores), b.integers(2)]), "minus_infinity"])
        return [bias, b.add("Where", [b.add("Less", [leaves_at, self.num_new]), "minus_infinity", scores])]

    def _spread(self, x: str) -> str:
        """[B, K, ...] to [B, H, ...], a key-value head for each of its query heads; as it is where all share one."""
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        if kv_heads in (1, heads):
            return x
        return self.b.add("Gather", [x, self.b.integers(*(h * kv_heads // heads for h in range(heads)))], axis=1)

    def _feed_forward(self, index: int, x: str) -> str:
        b, prefix = self.b, f"model.layers.{index}.mlp"
        joint = self._linear(x, f"{prefix}.gate_up", [f"{prefix}.gate_proj", f"{prefix}.up_proj"], self.format.bits)
        gate, up = b.add("Split", [joint], 2, axis=-1, num_outputs=2)
        inner = b.add("Mul", [self._activation(gate), up])
        output = self._linear(inner, f"{prefix}.down_proj", [f"{prefix}.down_proj"], self.format.bits)
        return b.add("Add", [output, self._experts(prefix, x)]) if self.config.is_moe else output

    def _experts(self, prefix: str, x: str) -> str:
        """The retrieved experts' part [B, T, D], as `small_doge.ops.cdmoe` computes it."""
        b, config = self.b, self.config
        num_keys, top_k = round(config.num_experts**0.5), config.num_experts_per_tok
        best = b.integers(min(top_k, num_keys))
        logits = b.add("MatMul", [x, b.weight(f"{prefix}.router", self.state[f"{prefix}.router_gate.weight"].T)])
        half_x, half_y = b.add("Split", [logits], 2, axis=-1, num_outputs=2)
        score_x, index_x = b.add("TopK", [half_x, best], 2, axis=-1)
        score_y, index_y = b.add("TopK", [half_y, best], 2, axis=-1)
        rank_x, rank_y = (b.integers(*rank) for rank in candidate_pairs(top_k, num_keys))
        sums = b.add("Add", [b.add("Gather", [score_x, rank_x], axis=2), b.add("Gather", [score_y, rank_y], axis=2)])
        scores, chosen = b.add("TopK", [sums, b.integers(top_k)], 2, axis=-1)
        rows = b.add("Mul", [b.add("Gather", [index_x, rank_x], axis=2), b.number(num_keys)])
        experts = b.add("Add", [rows, b.add("Gather", [index_y, rank_y], axis=2)])
        experts = b.add("GatherElements", [experts, chosen], axis=2)  # [B, T, k]
        weights = b.add("Softmax", [scores], axis=-1)
        inputs = self._rows(f"{prefix}.down_embed", experts, self.format.head_bits)  # [B, T, k, D]
        products = b.add("Squeeze", [b.add("MatMul", [inputs, b.add("Unsqueeze", [x, b.integers(3)])]), b.integers(3)])
        strengths = b.add("Mul", [self._activation(products), weights])
        outputs = self._rows(f"{prefix}.up_embed", experts, self.format.head_bits)
        mixed = b.add("MatMul", [b.add("Unsqueeze", [strengths, b.integers(2)]), outputs])
        return b.add("Squeeze", [mixed, b.integers(2)])

    def _activation(self, x: str) -> str:
        b, name = self.b, self.config.hidden_act
        if name in ("silu", "swish"):
            return b.add("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)
        if name == "relu":
            return b.add("Relu", [x])
        if name in ("gelu", "gelu_pytorch_tanh"):
            return b.add("Gelu", [x], approximate="none" if name == "gelu" else "tanh")
        raise UserError(f"hidden_act={name!r} cannot be exported; known: silu, relu, gelu, gelu_pytorch_tanh")

    def _finish(self) -> onnx.ModelProto:
        config = self.config
        layers, kv_heads, size = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        info = helper.make_tensor_value_info
        cache: list[Any] = ["batch", kv_heads, "slots", size]
        inputs: list[Any] = [
            info("input_ids", TensorProto.INT64, ["batch", "new"]),
            info("position_ids", TensorProto.INT64, ["batch", "new"]),
            info("logits_to_keep", TensorProto.INT64, ["kept"]),
            info("past_scores", TensorProto.FLOAT, ["batch", layers * kv_heads, "filled"]),
        ]
        outputs = [
            info("logits", TensorProto.FLOAT, ["batch", "kept", config.vocab_size]),
            info("present_scores", TensorProto.FLOAT, ["batch", layers * kv_heads, "total"]),
        ]
        for index in range(layers):
            for kind in ("key", "value"):
                inputs.append(info(f"past_{kind}.{index}", TensorProto.FLOAT, cache))
                outputs.append(info(f"present_{kind}.{index}", TensorProto.FLOAT, cache))
        graph = helper.make_graph(self.b.nodes, "doge", inputs, outputs, list(self.b.weights.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="small-doge")
