"""The ONNX graph of a Doge model: one graph for prompts and for single tokens.

The attention is ONNX Runtime's GroupQueryAttention, which keeps keys and values in buffers of fixed size and takes the
scores of dynamic mask attention as `attention_bias`. docs/deployment.md names inputs, outputs and what a caller does.

Shapes: B batch, T new tokens, P keys before, S = P + T, L layers, K key-value heads, H heads, d head size, D hidden
size, V vocabulary, w keep_window_size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from transformers import ROPE_INIT_FUNCTIONS

from ..models import DogeConfig, DogeForCausalLM
from ..ops.cdmoe import candidate_pairs
from .graph_builder import MICROSOFT, GraphBuilder
from .graph_eviction import Eviction
from .graph_weights import GraphWeights, WeightFormat


OPSET = 21
IR_VERSION = 10
# What there is a graph for; `check_exportable` refuses the rest.
ACTIVATIONS = ("silu", "swish", "relu", "gelu", "gelu_pytorch_tanh")
FREQUENCIES_THAT_STAY = ("default", "linear", "yarn", "llama3", "proportional")


def set_accuracy(model: onnx.ModelProto, level: int) -> onnx.ModelProto:
    """Make the products with quantised weights round their activations to 8 bits (level 4) or not at all (level 1)."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                attribute.i = level
    return model


def set_cache_scales(model: onnx.ModelProto, scales: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Make a graph keep keys and values as int8.

    Args:
        model: with a float32 cache.
        scales: [1, K, 1, d] of the keys and of the values of each layer in turn.
    """
    graph = model.graph
    attentions = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    attributes = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    for index, node in enumerate(attentions):
        names = [f"key_cache_scale.{index}", f"value_cache_scale.{index}"]
        pair = scales[2 * index : 2 * index + 2]
        graph.initializer.extend(numpy_helper.from_array(scale, name) for scale, name in zip(pair, names, strict=True))
        node.input.extend(["", *names])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    for tensor in (*graph.input, *graph.output):
        if tensor.name.startswith(("past_key.", "past_value.", "present_key.", "present_value.")):
            tensor.type.tensor_type.elem_type = TensorProto.INT8
    return model


def compute_frequencies(model: DogeForCausalLM, max_length: int | None) -> tuple[np.ndarray, float]:
    """Compute the inverse frequencies [d / 2] and the scale of the cosines, for texts of up to `max_length` tokens.

    Args:
        model: the model.
        max_length: number of tokens; the trained length if None.
    """
    rotary, config = model.model.rotary_emb, model.config
    if rotary.rope_type == "dynamic":
        frequencies, scaling = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=max_length)
        return frequencies.float().numpy(), scaling
    return rotary.original_inv_freq.float().numpy(), rotary.attention_scaling


class DogeGraph:
    """Builds the graph of one model.

    Args:
        model: the model, float32, which `check_exportable` let pass.
        weight_format: how to store the weights.
        max_length: tokens of the longest text, for which the frequencies of a dynamic RoPE are fixed; None for no limit.
            If it is no longer than the window, no key is ever evicted, and the graph has no nodes for it.

    Attributes:
        frequencies: the rotary inverse frequencies [d / 2].
        rounded: the float32 values that the quantised weights stand for, by name.
    """

    def __init__(self, model: DogeForCausalLM, weight_format: WeightFormat, max_length: int | None) -> None:
        self.config: DogeConfig = model.config
        self.num_kv_heads = self.config.num_key_value_heads or self.config.num_attention_heads
        self.max_length = max_length
        self.state = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
        self.format = weight_format
        self.frequencies, self.rope_scaling = compute_frequencies(model, max_length)
        self.builder = GraphBuilder()
        self.weights = GraphWeights(self.builder, self.state, weight_format)
        self.rounded = self.weights.rounded

    def build(self) -> onnx.ModelProto:
        """Build the whole model."""
        b, config = self.builder, self.config
        self._prepare()
        hidden = self.weights.embedding("model.embed_tokens", "input_ids")
        scores = self._split_scores()
        present = []
        normed = self._norm(hidden, "model.layers.0.input_layernorm.weight")
        for index in range(config.num_hidden_layers):
            hidden, normed, kept = self._layer(index, hidden, normed, scores[index])
            present.append(kept)
        b.nodes[-1].output[0] = "hidden_states"  # of the last normalization: an output that costs nothing
        present = b.add("Concat", present, axis=1)
        b.add("Squeeze", [present, b.integers(2)], ["present_scores"])
        chosen = b.add("Gather", ["hidden_states", "logits_to_keep"], axis=1)
        self.weights.head(chosen, "model.embed_tokens" if config.tie_word_embeddings else "lm_head")
        return self._finish()

    # What all layers share.

    def _prepare(self) -> None:
        """Add the shapes, rotary tables and eviction conditions."""
        b, config = self.builder, self.config
        shape = b.add("Shape", ["input_ids"])
        self.batch, self.num_new = b.add("Split", [shape], 2, num_outputs=2)  # [1] each
        self.num_past = b.add("Shape", ["past_scores"], start=2)  # [1]
        total = b.add("Add", [self.num_past, self.num_new])
        self.total = b.add("Squeeze", [b.add("Cast", [total], to=TensorProto.INT32)])
        # Each row has keys of its own number: all P of them where a caller does not say so.
        b.weight("num_keys", [np.iinfo(np.int64).max], np.int64)
        num_keys = b.add("Min", ["num_keys", self.num_past])  # [B] or [1]
        last = b.add("Add", [num_keys, b.add("Sub", [self.num_new, b.integers(1)])])
        self.seqlens = b.add("Expand", [b.add("Cast", [last], to=TensorProto.INT32), self.batch])
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
        width = (config.num_attention_heads + self.num_kv_heads) * config.head_dim
        self.rotary_shape = b.add("Concat", [shape, b.integers(width)], axis=0)
        is_needed = self.max_length is None or self.max_length > config.keep_window_size
        self.eviction = Eviction(
            b,
            config.keep_window_size,
            config.num_attention_heads,
            self.num_kv_heads,
            self.batch,
            self.num_new,
            self.num_past,
            num_keys,
            is_needed,
        )

    def _split_scores(self) -> list[str]:
        """Return the scores [B, K, 1, S] of each layer, with -inf in place of those of new keys."""
        b, layers = self.builder, self.config.num_hidden_layers
        past = b.add("Unsqueeze", ["past_scores", b.integers(2)])
        shape = b.add("Concat", [self.batch, b.integers(layers * self.num_kv_heads, 1), self.num_new], axis=0)
        blank = b.add("Expand", [b.weight("minus_infinity", -np.inf, np.float32), shape])
        scores = b.add("Concat", [past, blank], axis=3)
        return [scores] if layers == 1 else b.add("Split", [scores], layers, axis=1, num_outputs=layers)

    def _norm(self, x: str, name: str) -> str:
        """Normalize x [..., D] by its root mean square."""
        gamma = self.builder.weight(name, self.state[name])
        return self.builder.add(
            "SimplifiedLayerNormalization", [x, gamma], axis=-1, epsilon=self.config.rms_norm_eps, stash_type=1
        )

    # A layer.

    def _layer(self, index: int, hidden: str, normed: str, scores: str) -> tuple[str, str, str]:
        """Add a layer; return the residual stream, its normalization for the next layer, and the scores after the step."""
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
        """Add an update to the scaled residual stream; return the sum, and its normalization."""
        b, scale = self.builder, self.state[residual]
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
        """Add attention over x [B, T, D]; return its output, and the scores after the step."""
        b, config, prefix = self.builder, self.config, f"model.layers.{index}.self_attn"
        heads, kv_heads, size = config.num_attention_heads, self.num_kv_heads, config.head_dim
        projections = [f"{prefix}.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        joint = self.weights.linear(x, f"{prefix}.qkv", projections, self.format.bits)
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
        return self.weights.linear(mixed, f"{prefix}.o_proj", [f"{prefix}.o_proj"], self.format.bits), kept

    def _attention_bias(self, index: int, value: str, scores: str) -> list[str]:
        """Compute the bias [B, 1 or H, T, S] of each query and key, and the scores [B, K, 1, S] after the step.

        A key's score is exp(A * softplus(dt_proj(value))), hence positive.
        """
        b, prefix = self.builder, f"model.layers.{index}.self_attn"
        # As log(exp(x) + exp(0)): what ONNX Runtime's Softplus rounds to depends on the place within the batch.
        weight = b.weight(f"{prefix}.dt", self._pair_with_zeros(self.state[f"{prefix}.dt_proj.weight"]))
        raw = b.add("FusedMatMul", [weight, value], domain=MICROSOFT, transB=1)  # [B, 2 K, T]
        if f"{prefix}.dt_proj.bias" in self.state:
            bias = self._pair_with_zeros(self.state[f"{prefix}.dt_proj.bias"])
            raw = b.add("Add", [raw, b.weight(f"{prefix}.dt_bias", bias[:, None])])
        pairs = b.add("Reshape", [raw, b.integers(0, self.num_kv_heads, 2, -1)])
        positive = b.add("ReduceLogSumExp", [pairs, b.integers(2)])  # [B, K, 1, T]
        exponent = b.add("Mul", [positive, b.weight(f"{prefix}.A", self.state[f"{prefix}.A"][:, None, None])])
        return self.eviction.apply(scores, b.add("Exp", [exponent]))

    @staticmethod
    def _pair_with_zeros(weight: np.ndarray) -> np.ndarray:
        """Put a row of zeros after each row."""
        return np.stack([weight, np.zeros_like(weight)], axis=1).reshape(-1, *weight.shape[1:])

    def _feed_forward(self, index: int, x: str) -> str:
        """Add the gated feed-forward network of x [B, T, D], and the experts."""
        b, prefix = self.builder, f"model.layers.{index}.mlp"
        joint = self.weights.linear(
            x, f"{prefix}.gate_up", [f"{prefix}.gate_proj", f"{prefix}.up_proj"], self.format.bits
        )
        gate, up = b.add("Split", [joint], 2, axis=-1, num_outputs=2)
        inner = b.add("Mul", [self._activation(gate), up])
        output = self.weights.linear(inner, f"{prefix}.down_proj", [f"{prefix}.down_proj"], self.format.bits)
        return b.add("Add", [output, self._experts(prefix, x)]) if self.config.is_moe else output

    def _experts(self, prefix: str, x: str) -> str:
        """Add the retrieved experts' output [B, T, D], as the experts of `small_doge.ops` compute it."""
        b, config = self.builder, self.config
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
        inputs = self.weights.embedding(f"{prefix}.down_embed", experts)  # [B, T, k, D]
        products = b.add("Squeeze", [b.add("MatMul", [inputs, b.add("Unsqueeze", [x, b.integers(3)])]), b.integers(3)])
        strengths = b.add("Mul", [self._activation(products), weights])
        outputs = self.weights.embedding(f"{prefix}.up_embed", experts)
        mixed = b.add("MatMul", [b.add("Unsqueeze", [strengths, b.integers(2)]), outputs])
        return b.add("Squeeze", [mixed, b.integers(2)])

    def _activation(self, x: str) -> str:
        """Apply the activation function of the model."""
        b, name = self.builder, self.config.hidden_act
        if name in ("silu", "swish"):
            return b.add("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)
        if name == "relu":
            return b.add("Relu", [x])
        return b.add("Gelu", [x], approximate="none" if name == "gelu" else "tanh")

    def _finish(self) -> onnx.ModelProto:
        """Declare inputs and outputs, and make a model of the nodes."""
        config = self.config
        layers, kv_heads, size = config.num_hidden_layers, self.num_kv_heads, config.head_dim
        info = helper.make_tensor_value_info
        cache: list[Any] = ["batch", kv_heads, "slots", size]
        inputs: list[Any] = [
            info("input_ids", TensorProto.INT64, ["batch", "new"]),
            info("position_ids", TensorProto.INT64, ["batch", "new"]),
            info("logits_to_keep", TensorProto.INT64, ["kept"]),
            info("past_scores", TensorProto.FLOAT, ["batch", layers * kv_heads, "filled"]),
            info("num_keys", TensorProto.INT64, ["rows"]),
        ]
        outputs = [
            info("logits", TensorProto.FLOAT, ["batch", "kept", config.vocab_size]),
            info("hidden_states", TensorProto.FLOAT, ["batch", "new", config.hidden_size]),
            info("present_scores", TensorProto.FLOAT, ["batch", layers * kv_heads, "total"]),
        ]
        for index in range(layers):
            for kind in ("key", "value"):
                inputs.append(info(f"past_{kind}.{index}", TensorProto.FLOAT, cache))
                outputs.append(info(f"present_{kind}.{index}", TensorProto.FLOAT, cache))
        graph = helper.make_graph(self.builder.nodes, "doge", inputs, outputs, list(self.builder.weights.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="small-doge")
