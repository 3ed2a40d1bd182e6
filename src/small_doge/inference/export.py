"""Writing a trained model as one portable folder, checked before it is given its name."""

import copy
import inspect
import json
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models import DogeForCausalLM, DynamicMaskCache
from ..processor.chat_encoding import encode_chat, encode_prompt
from ..processor.corpus import iterate_documents, iterate_mixture
from ..utils.errors import UserError
from ..utils.files import check_output, whole_folder, write_json, write_manifest, write_text
from ..utils.model_card import build_model_card
from .loading import FORMAT_VERSION, GRAPH, RUNTIME, find_end_ids
from .onnx_backend import OnnxBackend, import_onnxruntime


MADE_BY = "small-doge export"
# Largest relative increase of the perplexity on held-out texts with which an export is written.
MAX_PERPLEXITY_INCREASE = {"none": 0.001, "int8": 0.02, "int4": 0.15}
UNSEEN = 10_000_000  # number of the first document: training stays far below
HELD_OUT_TEXTS, HELD_OUT_TOKENS, HELD_OUT_ROWS = 64, 128, 256
CHECK_PROMPTS, CHECK_TOKENS = 6, 32
PAST_WINDOW = 64
HEAD_SIZE_UNIT = 8  # of GroupQueryAttention; by trying sizes of 2 to 512, it needs no more
# Largest difference of a logit, as a share of the logits' spread, that rounding in float32 explains.
LOGIT_TOLERANCE = 2e-3


@dataclass
class Quality:
    """What the export's checks found.

    Attributes:
        perplexity: of the checkpoint in PyTorch, per token of the held-out texts.
        exported_perplexity: of the exported graph.
        logit_difference: largest difference to PyTorch with the same (dequantised) weights, as a share of the logits'
            standard deviation. Activations are not rounded for this.
        same_greedy: prompts after which both write the same tokens, as a share.
        agreement: tokens that the graph and the checkpoint would write alike, after the same text.
        divergence: mean Kullback-Leibler divergence of the graph from the checkpoint, in nats per token.
    """

    perplexity: float
    exported_perplexity: float
    logit_difference: float
    same_greedy: float
    agreement: float
    divergence: float

    @property
    def perplexity_increase(self) -> float:
        """Compute the increase of the perplexity, relative to the checkpoint's; 0.02 is 2%."""
        return self.exported_perplexity / self.perplexity - 1


def export_onnx(
    model: DogeForCausalLM,
    tokenizer: Any,
    output: str | Path,
    quantize: str = "int8",
    max_length: int | None = None,
    texts: Iterable[str] | None = None,
    max_perplexity_increase: float | None = None,
    name: str = "",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write `model.onnx`, tokenizer, settings and a card, after checking the graph against PyTorch.

    Args:
        model: dense or with experts.
        tokenizer: of the model; None leaves its files out.
        output: folder to write; an older export there is replaced.
        quantize: `none` (float32), `int8` or `int4`.
        max_length: of a text, for which a dynamic RoPE's frequencies are fixed; if None, the trained length for a
            dynamic RoPE, and no limit for others.
        texts: for measuring the loss of quality; of the embedded corpus if None.
        max_perplexity_increase: increase of the perplexity beyond which nothing is written; `MAX_PERPLEXITY_INCREASE` if None.
        name: of the model, for the card.
        overwrite: write into a folder that holds something else; files of other names are kept.

    Returns:
        The facts on the card.

    Raises:
        UserError: a folder that holds something else, a model that has no such graph, or a check that failed.
    """
    runtime = import_onnxruntime()
    try:
        from .graph import DogeGraph, set_accuracy
        from .graph_weights import ACCURACY_LEVEL, WEIGHT_FORMATS
    except ImportError as error:
        raise UserError("exporting needs onnx: pip install 'small-doge[export]'") from error
    if quantize not in WEIGHT_FORMATS:
        raise UserError(f"quantize={quantize!r} must be one of: {', '.join(WEIGHT_FORMATS)}")
    output = Path(output)
    if model.config.legacy_routing:
        raise UserError("legacy_routing mixes tokens and reads the future, which no step by step graph can do")
    _check_head_size(model.config)
    check_output(output, MADE_BY, overwrite)
    if max_length is not None and max_length < 2:
        raise UserError(f"max_length={max_length} must be at least 2")
    model = (model if model.dtype == torch.float32 else copy.deepcopy(model).float()).eval()
    settings = _make_settings(model, tokenizer, quantize, max_length)
    graph = DogeGraph(model, WEIGHT_FORMATS[quantize], settings["max_length"])
    proto = graph.build()
    reference, rounded = _make_references(model, graph)
    exact = OnnxBackend(set_accuracy(proto, 1).SerializeToString(), settings, num_slots=1, threads=1)
    serialized = set_accuracy(proto, ACCURACY_LEVEL).SerializeToString()
    backend = OnnxBackend(serialized, settings, num_slots=1)
    rows = _tokenize(texts, tokenizer, model.config.vocab_size, settings["max_length"])
    quality = check_quality(reference, rounded, exact, backend, rows, settings["end_ids"])
    limit = MAX_PERPLEXITY_INCREASE[quantize] if max_perplexity_increase is None else max_perplexity_increase
    _refuse(quality, quantize, limit)
    facts = _describe(model, backend, quality, quantize, settings, len(serialized), runtime.__version__, rows)
    with whole_folder(output, MADE_BY, overwrite) as folder:
        (folder / GRAPH).write_bytes(serialized)
        _save_tokenizer(tokenizer, folder)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        write_json(folder / RUNTIME, settings)
        write_text(folder / "README.md", _write_card(name or output.name, facts, settings))
        write_manifest(folder)
    return facts


def _check_head_size(config: Any) -> None:
    """Refuse head sizes that the attention of ONNX Runtime does not have."""
    if config.head_size % HEAD_SIZE_UNIT:
        raise UserError(
            f"hidden_size={config.hidden_size} and num_attention_heads={config.num_attention_heads} give heads of "
            f"{config.head_size}; ONNX Runtime computes multiples of {HEAD_SIZE_UNIT} alone. Use the checkpoint as it is "
            "(chat, generate and bench take it, export writes it with --format hf), or train with other sizes"
        )


def _make_settings(model: DogeForCausalLM, tokenizer: Any, quantize: str, max_length: int | None) -> dict[str, Any]:
    """What `runtime.json` says."""
    config = model.config
    is_dynamic = model.model.rotary_emb.rope_type == "dynamic"
    return {
        "format": "small-doge-onnx",
        "version": FORMAT_VERSION,
        "quantize": quantize,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_size,
        "keep_window_size": config.keep_window_size,
        "max_length": max_length or (config.max_position_embeddings if is_dynamic else None),
        "end_ids": find_end_ids(model.generation_config.eos_token_id, tokenizer),
    }


def _make_references(model: DogeForCausalLM, graph: Any) -> tuple[DogeForCausalLM, DogeForCausalLM]:
    """The model as the graph turns its queries and keys, and the same with the graph's rounded weights."""
    reference = model
    if model.model.rotary_emb.rope_type == "dynamic":
        reference = copy.deepcopy(model)
        rotary = reference.model.rotary_emb
        rotary.rope_type = "default"  # the frequencies stay as they are, whatever the length
        rotary.inv_freq.copy_(torch.from_numpy(graph.frequencies))
    if not graph.rounded:
        return reference, reference
    rounded = copy.deepcopy(reference)
    rounded.load_state_dict({key: torch.from_numpy(value) for key, value in graph.rounded.items()}, strict=False)
    return reference, rounded


def export_hf(
    model: DogeForCausalLM, tokenizer: Any, output: str | Path, name: str = "", overwrite: bool = False
) -> dict[str, Any]:
    """Write a clean folder for `transformers`: weights, settings, tokenizer and a card; experts with their code.

    Args:
        model: as for `export_onnx`.
        tokenizer: of the model; None leaves its files out.
        output: folder to write; an older export there is replaced.
        name: of the model, for the card.
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
            code = Path(inspect.getfile(DogeForCausalLM)).with_name("modeling_doge_moe.py")
            shutil.copy(code, folder / code.name)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config["auto_map"] = {
                "AutoConfig": f"{code.stem}.DogeMoeConfig",
                "AutoModelForCausalLM": f"{code.stem}.DogeMoeForCausalLM",
            }
            write_json(folder / "config.json", config)
            facts["experts"] = f"{model.config.num_experts}, {model.config.num_experts_per_tok} per token"
            facts["loads with"] = "`import small_doge`, or `trust_remote_code=True`"
        title = name or output.name
        settings = {key: value for key, value in model.config.to_diff_dict().items() if not isinstance(value, dict)}
        write_text(
            folder / "README.md", build_model_card(title, "Trained", facts, settings, title, trust_code=needs_code)
        )
    return facts


def _tokenize(texts: Iterable[str] | None, tokenizer: Any, vocab_size: int, limit: int | None) -> list[list[int]]:
    """Rows of tokens to measure on; without a tokenizer, random ones."""
    length = min(HELD_OUT_TOKENS, limit or HELD_OUT_TOKENS)
    if tokenizer is None:
        random = np.random.default_rng(0)
        return random.integers(0, vocab_size, (HELD_OUT_TEXTS, length)).tolist()
    encoded: list[list[int]] = []
    if texts is None:
        texts = iterate_mixture(HELD_OUT_TEXTS, start=UNSEEN)
        chats = iterate_documents("chat", UNSEEN + HELD_OUT_TEXTS, start=UNSEEN) if tokenizer.chat_template else ()
        encoded = [encode_chat(tokenizer, row["messages"]).ids for row in chats]
    rows: list[list[int]] = []
    for ids in chain(encoded, (encode_prompt(tokenizer, text) for text in texts)):
        rows += [ids[i : i + length] for i in range(0, len(ids), length)]
        if len(rows) >= HELD_OUT_ROWS:
            break
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise UserError("there are no texts to measure the loss of quality on")
    return rows


@torch.no_grad()
def check_quality(
    model: DogeForCausalLM,
    rounded: DogeForCausalLM,
    exact: OnnxBackend,
    backend: OnnxBackend,
    rows: list[list[int]],
    end_ids: Sequence[int],
) -> Quality:
    """Compare graphs with the checkpoint and with PyTorch on the same rounded weights."""
    differences, agreements, divergences, own, exported = [], [], [], [], []
    for row in _choose_parity_rows(rows, backend):
        wanted = rounded(torch.tensor([row])).logits[0]
        found = torch.from_numpy(_run_row(exact, row))
        differences.append(float((found - wanted).abs().max() / wanted.std()))
    for row in rows:
        ids = torch.tensor([row])
        reference = model(ids).logits[0]
        logits = torch.from_numpy(_run_row(backend, row))
        agreements.append((reference.argmax(-1) == logits.argmax(-1)).float().mean().item() * len(row))
        log_p, log_q = reference.log_softmax(-1), logits.log_softmax(-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum().item())
        target = ids[0, 1:, None]
        own.append(-log_p[:-1].gather(1, target).sum().item())
        exported.append(-log_q[:-1].gather(1, target).sum().item())
    tokens = sum(map(len, rows))
    targets = tokens - len(rows)
    same = [_writes_alike(model, backend, row, end_ids) for row in rows[:CHECK_PROMPTS]]
    return Quality(
        perplexity=math.exp(sum(own) / targets),
        exported_perplexity=math.exp(sum(exported) / targets),
        logit_difference=max(differences),
        same_greedy=sum(same) / len(same),
        agreement=sum(agreements) / tokens,
        divergence=sum(divergences) / tokens,
    )


def _choose_parity_rows(rows: list[list[int]], backend: OnnxBackend) -> list[list[int]]:
    """Texts within the window, and rows joined to one text that goes past it."""
    window = backend.keep_window_size
    limit = min(backend.max_length or window + PAST_WINDOW, window + PAST_WINDOW)
    joined = list(islice(chain.from_iterable(cycle(rows)), limit))
    return [row[:window] for row in rows[: 2 * CHECK_PROMPTS]] + [joined]


def _run_row(backend: OnnxBackend, row: Sequence[int]) -> np.ndarray:
    """Logits [T, V] of a row, in pieces of odd sizes as a conversation has them."""
    backend.clear(0)
    pieces = np.split(np.array(row), range(backend.chunk_size // 2 + 1, len(row), backend.chunk_size // 2 + 1))
    return np.concatenate([backend.prefill(0, piece, keep=np.arange(len(piece))) for piece in pieces])


def _writes_alike(model: DogeForCausalLM, backend: OnnxBackend, row: Sequence[int], end_ids: Sequence[int]) -> bool:
    """Whether both go on from the first half of a row with the same likeliest tokens; a tie counts for both."""
    prompt = list(row[: max(1, min(len(row), backend.keep_window_size) // 2)])
    room = min(CHECK_TOKENS, backend.keep_window_size - len(prompt))
    if backend.max_length is not None:
        room = min(room, backend.max_length - len(prompt))
    cache = DynamicMaskCache(model.config)
    backend.clear(0)
    ids = np.array(prompt)
    for _ in range(room):
        wanted = model(torch.from_numpy(ids)[None], past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
            0, -1
        ]
        token, own = int(backend.prefill(0, ids).argmax()), int(wanted.argmax())
        if token != own:
            return bool(wanted[own] - wanted[token] <= LOGIT_TOLERANCE * wanted.std())
        if token in end_ids:
            break
        ids = np.array([token])
    return True


def _refuse(quality: Quality, quantize: str, limit: float) -> None:
    if not quality.logit_difference <= LOGIT_TOLERANCE:
        raise UserError(
            f"the exported graph differs from PyTorch by {quality.logit_difference:.2g} of the logits' spread, more than "
            f"rounding explains ({LOGIT_TOLERANCE}); nothing was written. Please report it with the model's config.json"
        )
    if quantize == "none" and quality.same_greedy < 1:
        raise UserError(
            f"the exported graph writes other text than PyTorch after {1 - quality.same_greedy:.0%} of the prompts; "
            "nothing was written. Please report it with the model's config.json"
        )
    if not quality.perplexity_increase <= limit:
        raise UserError(
            f"{quantize} raises the perplexity by {quality.perplexity_increase:.2%}, from {quality.perplexity:.4g} to "
            f"{quality.exported_perplexity:.4g}; the limit is {limit:.2%}. Nothing was written. Use more bits, or allow it "
            f"with --max-perplexity-increase {quality.perplexity_increase * 1.1:.2g}"
        )


def _describe(
    model: DogeForCausalLM,
    backend: OnnxBackend,
    quality: Quality,
    quantize: str,
    settings: dict[str, Any],
    size: int,
    version: str,
    rows: list[list[int]],
) -> dict[str, Any]:
    """The facts on the card; times are of this machine."""
    from ..utils.hardware import describe_device

    depth = 64 if settings["max_length"] is None else min(64, settings["max_length"] // 2)
    ids = np.arange(depth) % settings["vocab_size"]
    speeds = []
    for _ in range(3):
        backend.clear(0)
        start = time.perf_counter()
        backend.prefill(0, ids)
        middle = time.perf_counter()
        steps = min(32, depth)
        for _ in range(steps):
            backend.decode(1, np.zeros(1, dtype=np.int64))
        speeds.append((depth / (middle - start), steps / (time.perf_counter() - middle)))
    prefill, decode = (max(values) for values in zip(*speeds, strict=True))
    device = describe_device()
    return {
        "weights": {"none": "float32", "int8": "blocks of 8 bits", "int4": "blocks of 4 bits"}[quantize],
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M",
        "size of model.onnx": f"{size / 1e6:.1f} MB",
        "perplexity of the checkpoint": f"{quality.perplexity:.4f}",
        "perplexity of the export": f"{quality.exported_perplexity:.4f} ({quality.perplexity_increase:+.3%})",
        "measured on": f"{sum(map(len, rows)):,} tokens in {len(rows)} held-out rows",
        "logits against PyTorch with the same weights": f"{quality.logit_difference:.1e} of their spread",
        "same greedy text as PyTorch": f"{quality.same_greedy:.0%} of {min(CHECK_PROMPTS, len(rows))} prompts",
        "same likeliest token as PyTorch": f"{quality.agreement:.2%}",
        "divergence from PyTorch": f"{quality.divergence:.2e} nats per token",
        f"prompt of {depth} tokens": f"{prefill:,.0f} tokens/s",
        f"decoding after {depth} tokens": f"{decode:,.0f} tokens/s, threads: {backend.threads}",
        "machine": f"{device['processor']}, {device['instructions']}, ONNX Runtime {version}",
        "longest text": "no limit" if settings["max_length"] is None else f"{settings['max_length']} tokens",
    }


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _write_card(name: str, facts: dict[str, Any], settings: dict[str, Any]) -> str:
    limit = settings["max_length"]
    dynamic = (
        f"\nIts rotary frequencies are fixed for texts of up to {limit} tokens, prompt and answer together.\n"
        if limit
        else ""
    )
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""---
library_name: onnx
pipeline_tag: text-generation
tags: [doge, small-doge, onnx]
---

# {name}

Exported with [SmallDoge](https://github.com/SmallDoges/small-doge).
{dynamic}
| Fact | Value |
|---|---|
{table}

## Use

```bash
small-doge chat {name}
```

```python
from small_doge.inference import OnnxEngine

engine = OnnxEngine("{name}")
print(engine.generate("Ada lives in", max_new_tokens=20))
```
"""
