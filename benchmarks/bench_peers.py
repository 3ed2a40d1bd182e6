"""Exported Doge beside llama.cpp (plain Llama of the same shape and bits) and `transformers`' own Doge, in one process.

llama.cpp runs by llama-cpp-python and gguf (pip install llama-cpp-python gguf); its rows are left out, with the reason,
where they are not installed. Weights are random: speed does not depend on them. Ratios are medians over rounds in which
all take their turn. Depths that end within the trained length run the graph that `small-doge export` writes for these
presets, from which no key leaves; deeper ones that of `--max-length`, which keeps a window of 2,048. llama.cpp keeps its keys
and values as float16.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import build_peer, report

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.inference.benchmark import prefill_prompt
from small_doge.inference.export_checks import calibrate_cache
from small_doge.inference.graph import DogeGraph, set_cache_scales
from small_doge.inference.graph_weights import WEIGHT_FORMATS
from small_doge.inference.onnx_backend import OnnxBackend


LLAMA_TYPES = {"int8": "Q8_0", "int4": "Q4_0"}
PIECE = 512
# Threads of the engine before keep spinning for a while after their last product.
PAUSE = 0.05


class Ours:
    """An exported graph, for texts of up to `max_length` tokens or of any length.

    With `kv_cache_dtype` int8, rows of token ids, `calibration`, give the scales.
    """

    def __init__(
        self, model, quantize, threads, num_slots=1, max_length=None, kv_cache_dtype="float32", calibration=()
    ):
        config = model.config
        settings = {
            "num_hidden_layers": config.num_hidden_layers,
            "num_key_value_heads": config.num_key_value_heads,
            "head_size": config.head_dim,
            "vocab_size": config.vocab_size,
            "keep_window_size": config.keep_window_size,
            "max_length": max_length,
        }
        proto = DogeGraph(model, WEIGHT_FORMATS[quantize], max_length).build()
        self.backend = OnnxBackend(proto.SerializeToString(), settings, num_slots=num_slots, threads=threads)
        if kv_cache_dtype == "int8":
            set_cache_scales(proto, calibrate_cache(self.backend, calibration))
            settings["kv_cache_dtype"] = kv_cache_dtype
            self.backend = OnnxBackend(proto.SerializeToString(), settings, num_slots=num_slots, threads=threads)

    def prefill(self, ids):
        prefill_prompt(self.backend, 0, np.array(ids))

    def decode(self, count):
        for _ in range(count):
            self.backend.decode(1, np.zeros(1, dtype=np.int64)).argmax()


class Transformers:
    """`transformers`' own Doge in float32."""

    def __init__(self, model):
        self.model = build_peer(model.config).eval()
        self.ids = None

    def prefill(self, ids):
        self.ids = torch.tensor([ids])
        self.first = self._generate(1)

    def _generate(self, count):
        start = time.perf_counter()
        self.model.generate(
            self.ids, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        return time.perf_counter() - start

    def seconds(self, count):
        """Per token, without the prompt."""
        return (self._generate(count + 1) - self._generate(1)) / count


class LlamaCpp:
    """A plain Llama with random weights of the same shape."""

    def __init__(self, config, kind, threads, context):
        import gguf
        import llama_cpp

        self.library = llama_cpp
        self.quiet = llama_cpp.llama_log_callback(lambda *arguments: None)
        llama_cpp.llama_log_set(self.quiet, None)
        llama_cpp.llama_backend_init()
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.gguf")
            write_llama(gguf, path, config, gguf.GGMLQuantizationType[kind])
            self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, PIECE, PIECE
            parameters.n_threads = parameters.n_threads_batch = threads
            self.context = llama_cpp.llama_init_from_model(self.model, parameters)

    def _take(self, ids):
        for start in range(0, len(ids), PIECE):
            part = ids[start : start + PIECE]
            tokens = (self.library.llama_token * len(part))(*part)
            failed = self.library.llama_decode(self.context, self.library.llama_batch_get_one(tokens, len(part)))
            if failed:
                raise RuntimeError(f"llama_decode returned {failed}")
        self.library.llama_get_logits(self.context)  # waits for the result

    def prefill(self, ids):
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        self._take(ids)

    def decode(self, count):
        for _ in range(count):
            self._take([0])

    def close(self):
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)


def write_llama(gguf, path, config, kind, tokenizer=None):
    """A GGUF file of architecture llama: no scores, no normalised queries, otherwise the shape of the Doge model.

    With a tokenizer (of `tokenizers`, byte-level BPE) the file has its vocabulary, too.
    """
    writer = gguf.GGUFWriter(path, "llama")
    size, inner, hidden = config.head_dim, config.intermediate_size, config.hidden_size
    heads, kv_heads = config.num_attention_heads * size, config.num_key_value_heads * size
    writer.add_context_length(131072)
    writer.add_embedding_length(hidden)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        add_vocabulary(gguf, writer, tokenizer, config.vocab_size)
    random = np.random.default_rng(0)

    def add(name, *shape):
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
            return
        weight = random.standard_normal(shape, dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)

    add("token_embd.weight", config.vocab_size, hidden)
    add("output_norm.weight", hidden)
    for index in range(config.num_hidden_layers):
        layer = f"blk.{index}."
        add(layer + "attn_norm.weight", hidden)
        add(layer + "attn_q.weight", heads, hidden)
        add(layer + "attn_k.weight", kv_heads, hidden)
        add(layer + "attn_v.weight", kv_heads, hidden)
        add(layer + "attn_output.weight", hidden, heads)
        add(layer + "ffn_norm.weight", hidden)
        add(layer + "ffn_gate.weight", inner, hidden)
        add(layer + "ffn_up.weight", inner, hidden)
        add(layer + "ffn_down.weight", hidden, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(gguf, writer, tokenizer, vocab_size):
    """Write a byte-level BPE vocabulary; numbers that no token has are control tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    tokens = [tokenizer.id_to_token(number) for number in range(vocab_size)]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token or f"<unused{number}>" for number, token in enumerate(tokens)])
    writer.add_token_types(
        [kinds.CONTROL if not token or number in special else kinds.NORMAL for number, token in enumerate(tokens)]
    )
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def measure_preset(name, depths, formats, caches, threads, rounds, steps, with_transformers):
    config = DogeConfig.from_preset(name, keep_window_size=2048)
    torch.manual_seed(0)
    model = DogeForCausalLM(config).eval()
    ours, llamas, rows = {}, {}, []
    length, written = config.max_position_embeddings, rounds * (steps + 2)
    limits = {depth: length if depth + written < length else None for depth in depths}
    calibration = np.random.default_rng(0).integers(0, config.vocab_size, (16, 128)).tolist()
    kinds = list(itertools.product(formats, caches))
    for quantize in formats:
        for cache, limit in itertools.product(caches, set(limits.values())):
            ours[quantize, cache, limit] = Ours(
                model, quantize, threads, max_length=limit, kv_cache_dtype=cache, calibration=calibration
            )
        try:
            kind = LLAMA_TYPES[quantize]
            llamas[f"llama.cpp {kind}"] = LlamaCpp(config, kind, threads, max(depths) + 4 * rounds * steps + PIECE)
        except ImportError as error:
            print(f"llama.cpp rows left out: {error}; pip install llama-cpp-python gguf", flush=True)
    peer = Transformers(model) if with_transformers else None
    for depth in depths:
        runs = {f"ours {kind}": ours[*kind, limits[depth]] for kind in kinds} | llamas
        ids = np.random.default_rng(depth).integers(0, config.vocab_size, max(1, depth)).tolist()
        decode, prefill = {key: [] for key in runs}, {key: [] for key in runs}
        if peer is not None and depth <= 512:
            decode["transformers float32"] = []
            peer.prefill(ids)
        for number in range(rounds):
            for key, run in runs.items():
                time.sleep(PAUSE)
                # Long prompts take their time.
                if number < (rounds if depth <= PIECE else 3 if depth <= 2048 else 1):
                    start = time.perf_counter()
                    run.prefill(ids)
                    prefill[key].append(time.perf_counter() - start)
                time.sleep(PAUSE)
                run.decode(2)
                start = time.perf_counter()
                run.decode(steps)
                decode[key].append((time.perf_counter() - start) / steps)
            if "transformers float32" in decode and number < 3:
                decode["transformers float32"].append(peer.seconds(8))
        rows += [make_row(name, depth, kind, decode, prefill) for kind in kinds]
    for llama in llamas.values():
        llama.close()
    return rows


def make_row(name, depth, kind, decode, prefill):
    quantize, cache = kind
    ours, llama = f"ours {kind}", f"llama.cpp {LLAMA_TYPES[quantize]}"
    row = {"model": name, "depth": depth, "weights": quantize, "cache": cache, "decode_tok_s": 1 / min(decode[ours])}
    if llama in decode:
        row["decode / llama.cpp"] = median_ratio(decode[llama], decode[ours])
        row["llama.cpp_tok_s"] = 1 / min(decode[llama])
    if "transformers float32" in decode:
        row["decode / transformers"] = min(decode["transformers float32"]) / min(decode[ours])
        row["transformers_tok_s"] = 1 / min(decode["transformers float32"])
    if depth:
        row["prefill_tok_s"] = depth / min(prefill[ours])
        if llama in prefill:
            row["prefill / llama.cpp"] = median_ratio(prefill[llama], prefill[ours])
    return row


def median_ratio(other, own):
    return statistics.median(a / b for a, b in zip(other, own, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["Doge-20M", "Doge-60M", "Doge-160M"])
    parser.add_argument("--depths", nargs="+", type=int, default=[0, 512, 2048, 8192])
    parser.add_argument("--formats", nargs="+", default=["int8", "int4"], choices=list(LLAMA_TYPES))
    parser.add_argument(
        "--kv-cache-dtypes", nargs="+", default=["float32"], choices=["float32", "int8"], dest="caches"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=16, help="tokens timed in a round")
    parser.add_argument("--no-transformers", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        rows += measure_preset(
            name,
            args.depths,
            args.formats,
            args.caches,
            args.threads,
            args.rounds,
            args.steps,
            not args.no_transformers,
        )
        print(f"{name} done", flush=True)
    report("peers", rows)


if __name__ == "__main__":
    main()
