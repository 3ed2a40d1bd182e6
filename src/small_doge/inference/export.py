"""Export of a trained model as one portable folder, checked before it gets its name."""

import copy
import inspect
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..models import DogeConfig, DogeForCausalLM
from ..utils.errors import UserError
from ..utils.extras import needs_extra
from ..utils.files import check_output, whole_folder, write_json, write_manifest, write_text
from ..utils.model_card import build_model_card
from ..utils.suggest import unknown_name_message
from .detokenizer import Tokenizer
from .export_card import build_card, collect_facts
from .export_checks import (
    Quality,
    calibrate_cache,
    check_quality,
    make_references,
    refuse_bad_quality,
    tokenize_held_out,
)
from .loading import CACHE_FORMAT_VERSION, FORMAT_VERSION, GRAPH, RUNTIME, find_end_ids
from .onnx_backend import OnnxBackend
from .onnx_session import import_onnxruntime


MADE_BY = "small-doge export"
KV_CACHE_DTYPES = ("float32", "int8")
FACTS = "facts.json"  # those on the card
HEAD_SIZE_UNIT = 8  # of GroupQueryAttention; by trying sizes of 2 to 512, it needs no more


def export_onnx(
    model: DogeForCausalLM,
    tokenizer: Tokenizer | None,
    output: str | Path,
    quantize: str = "int8",
    max_length: int | None = None,
    texts: Iterable[str] | None = None,
    max_perplexity_increase: float | None = None,
    name: str = "",
    overwrite: bool = False,
    kv_cache_dtype: str = "float32",
) -> dict[str, Any]:
    """Write `model.onnx`, tokenizer, settings and a card, after checking the graph against PyTorch.

    Args:
        model: the model, dense or with experts.
        tokenizer: tokenizer of the model; None leaves its files out.
        output: folder to write; an older export there is replaced.
        quantize: `none` (float32), `int8` or `int4`.
        max_length: tokens of the longest text, for which a dynamic RoPE's frequencies are fixed; if None, the trained
            length for a dynamic RoPE, and no limit for others.
        texts: held-out texts to measure the perplexity on; those of the embedded corpus if None.
        max_perplexity_increase: largest relative increase of the perplexity, 0.02 for 2%, with which the export is
            written; that of `MAX_PERPLEXITY_INCREASE` for the format if None.
        name: name of the model, for the card.
        overwrite: write into a folder that holds something else; files of other names are kept.
        kv_cache_dtype: numbers in which keys and values are kept, `float32` or `int8`. For int8, every other text finds
            the scales, and the others measure what it costs.

    Returns:
        The facts on the card.

    Raises:
        UserError: the folder holds something else, the model has no such graph, or a check failed.
    """
    # 1. Refuse what can't be exported, before any work.
    runtime = import_onnxruntime()
    output = Path(output)
    check_exportable(model.config, quantize, max_length)
    if kv_cache_dtype not in KV_CACHE_DTYPES:
        raise UserError(unknown_name_message("kv_cache_dtype", kv_cache_dtype, KV_CACHE_DTYPES))
    check_output(output, MADE_BY, overwrite)
    # 2. Build the graph, and open it with and without rounding of activations.
    model = (model if model.dtype == torch.float32 else copy.deepcopy(model).float()).eval()
    settings = _make_settings(model, tokenizer, quantize, max_length, kv_cache_dtype)
    rows = tokenize_held_out(texts, tokenizer, model.config.vocab_size, settings["max_length"])
    graph, exact, exported = _build_graph(model, settings, rows[::2])
    # 3. Compare it with PyTorch, on held-out texts.
    backend = OnnxBackend(exported, settings, num_slots=1)
    rows = rows if kv_cache_dtype == "float32" else rows[1::2] or rows
    quality = _compare(model, graph, exact, backend, rows, settings)
    refuse_bad_quality(quality, quantize, max_perplexity_increase, kv_cache_dtype)
    # 4. Write the folder, with a card.
    facts = collect_facts(model, backend, quality, quantize, settings, len(exported), runtime.__version__, rows)
    card = build_card(name or output.name, facts, settings)
    _write_folder(output, model, tokenizer, exported, settings, facts, card, overwrite)
    return facts


def check_exportable(config: DogeConfig, quantize: str, max_length: int | None = None) -> None:
    """Refuse settings and models that have no graph.

    Raises:
        UserError: the reason, and what to do.
    """
    with needs_extra("exporting", "export"):
        from .graph import ACTIVATIONS, FREQUENCIES_THAT_STAY
        from .graph_weights import WEIGHT_FORMATS
    if quantize not in WEIGHT_FORMATS:
        raise UserError(f"quantize={quantize!r} must be one of: {', '.join(WEIGHT_FORMATS)}")
    if max_length is not None and max_length < 2:
        raise UserError(f"max_length={max_length} must be at least 2")
    if config.legacy_routing:
        raise UserError("legacy_routing mixes tokens and reads the future, which no step by step graph can do")
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"hidden_act={config.hidden_act!r} cannot be exported; train with one of: {', '.join(ACTIVATIONS)}"
        )
    rope_types = (*FREQUENCIES_THAT_STAY, "dynamic")
    rope_type = (config.rope_parameters or {}).get("rope_type", "default")
    if rope_type not in rope_types:
        raise UserError(
            f"rope_type={rope_type!r} changes its frequencies with the length and cannot be exported; train with one of: "
            f"{', '.join(rope_types)}"
        )
    if config.head_dim % HEAD_SIZE_UNIT:
        raise UserError(
            f"hidden_size={config.hidden_size} and num_attention_heads={config.num_attention_heads} give heads of "
            f"{config.head_dim}; ONNX Runtime computes multiples of {HEAD_SIZE_UNIT} alone. Use the checkpoint as it is "
            "(chat, generate and bench take it, export writes it with --format hf), or train with other sizes"
        )


def _make_settings(
    model: DogeForCausalLM, tokenizer: Tokenizer | None, quantize: str, max_length: int | None, kv_cache_dtype: str
) -> dict[str, Any]:
    """Make the content of `runtime.json`."""
    config = model.config
    is_dynamic = model.model.rotary_emb.rope_type == "dynamic"
    of_cache = {"version": CACHE_FORMAT_VERSION, "kv_cache_dtype": kv_cache_dtype}
    return {
        "format": "small-doge-onnx",
        "version": FORMAT_VERSION,
        "quantize": quantize,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_dim,  # named so in exported folders and by their readers
        "keep_window_size": config.keep_window_size,
        "max_length": max_length or (config.max_position_embeddings if is_dynamic else None),
        "end_ids": find_end_ids(model.generation_config.eos_token_id, tokenizer),
        **({} if kv_cache_dtype == "float32" else of_cache),
    }


def _build_graph(model: DogeForCausalLM, settings: dict[str, Any], rows: list[list[int]]) -> tuple[Any, bytes, bytes]:
    """Build the graph; rows of token ids find the scales of a cache of 8 bits.

    Returns:
        The `DogeGraph`, its bytes without rounding of activations and cache, and its bytes as they are exported.
    """
    from .graph import DogeGraph, set_accuracy, set_cache_scales
    from .graph_weights import ACCURACY_LEVEL, WEIGHT_FORMATS

    graph = DogeGraph(model, WEIGHT_FORMATS[settings["quantize"]], settings["max_length"])
    proto = graph.build()
    exact = set_accuracy(proto, 1).SerializeToString()
    if "kv_cache_dtype" in settings:
        set_cache_scales(proto, calibrate_cache(_open_exact(exact, settings), rows))
    return graph, exact, set_accuracy(proto, ACCURACY_LEVEL).SerializeToString()


def _compare(
    model: DogeForCausalLM,
    graph: Any,
    exact: bytes,
    backend: OnnxBackend,
    rows: list[list[int]],
    settings: dict[str, Any],
) -> Quality:
    """Compare a `DogeGraph`, its bytes without rounding of activations, and its backend with PyTorch."""
    reference, rounded = make_references(model, graph)
    return check_quality(reference, rounded, _open_exact(exact, settings), backend, rows, settings["end_ids"])


def _open_exact(graph: bytes, settings: dict[str, Any]) -> OnnxBackend:
    """Open a graph whose cache is float32, whatever that of the export is."""
    return OnnxBackend(graph, {**settings, "kv_cache_dtype": "float32"}, num_slots=1, threads=1)


def _write_folder(
    output: Path,
    model: DogeForCausalLM,
    tokenizer: Tokenizer | None,
    graph: bytes,
    settings: dict[str, Any],
    facts: dict[str, Any],
    card: str,
    overwrite: bool,
) -> None:
    """Write an exported folder, whole or not at all."""
    with whole_folder(output, MADE_BY, overwrite) as folder:
        (folder / GRAPH).write_bytes(graph)
        _save_tokenizer(tokenizer, folder)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        write_json(folder / RUNTIME, settings)
        write_json(folder / FACTS, facts)
        write_text(folder / "README.md", card)
        write_manifest(folder)


def export_hf(
    model: DogeForCausalLM, tokenizer: Tokenizer | None, output: str | Path, name: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Write a clean folder for `transformers`: weights, settings, tokenizer and a card; experts with their code.

    Args:
        model: as for `export_onnx`.
        tokenizer: tokenizer of the model; None leaves its files out.
        output: folder to write; an older export there is replaced.
        name: name of the model, for the card.
        overwrite: write into a folder that holds something else; files of other names are kept.

    Returns:
        The facts on the card.

    Raises:
        UserError: the folder holds something else.
    """
    output = Path(output)
    check_output(output, MADE_BY, overwrite)
    facts = {"parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M"}
    with whole_folder(output, MADE_BY, overwrite) as folder:
        model.save_pretrained(folder)
        _save_tokenizer(tokenizer, folder)
        needs_code = model.config.model_type == "doge_moe"
        if needs_code:
            _add_code(folder)
            facts["experts"] = f"{model.config.num_experts}, {model.config.num_experts_per_tok} per token"
            facts["loads with"] = "`import small_doge`, or `trust_remote_code=True`"
        write_json(folder / FACTS, facts)
        title = name or output.name
        settings = {key: value for key, value in model.config.to_diff_dict().items() if not isinstance(value, dict)}
        write_text(
            folder / "README.md", build_model_card(title, "Trained", facts, settings, title, trust_code=needs_code)
        )
    return facts


def _save_tokenizer(tokenizer: Tokenizer | None, folder: Path) -> None:
    """Write the tokenizer's files, if there is one."""
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _add_code(folder: Path) -> None:
    """Add the code of a model with experts, and its names in `config.json`, for `trust_remote_code`."""
    code = Path(inspect.getfile(DogeForCausalLM)).with_name("modeling_doge_moe.py")
    shutil.copy(code, folder / code.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"{code.stem}.DogeMoeConfig",
        "AutoModelForCausalLM": f"{code.stem}.DogeMoeForCausalLM",
    }
    write_json(folder / "config.json", config)
