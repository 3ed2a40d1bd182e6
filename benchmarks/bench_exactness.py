"""How far ways of computing the same logits are apart on a trained model, within the window and past it.

Each way (token by token with the bounded cache, in pieces, exported) is compared with one forward pass of the whole text,
with scores ranked in bfloat16, as everything here does, and by all their digits. Then each format of exports is compared with
itself: texts of different lengths that take steps together in several slots with each alone, and prompts in pieces with
whole ones, to the last bit.
"""

import argparse
import copy
import itertools
from contextlib import ExitStack
from importlib import import_module
from unittest.mock import patch

import numpy as np
import torch
from common import report
from transformers import AutoModelForCausalLM

from small_doge import DynamicMaskCache
from small_doge.inference.graph import DogeGraph, set_accuracy
from small_doge.inference.graph_weights import ACCURACY_LEVEL, WEIGHT_FORMATS
from small_doge.inference.onnx_backend import OnnxBackend
from small_doge.models import load_model
from small_doge.processor.corpus import iterate_mixture
from small_doge.utils.model_folder import load_tokenizer


RANKED_IN = [import_module(f"small_doge.ops.dynamic_mask_attention.{n}") for n in ("masking", "reference", "decode")]
UNSEEN = 900_000


def make_rows(tokenizer, count, length):
    """Rows of texts that the model has not seen, and one that says the same again and again."""
    texts = iterate_mixture(100 * count, start=UNSEEN)
    ids = list(
        itertools.islice((i for text in texts for i in tokenizer(text, verbose=False)["input_ids"]), count * length)
    )
    rows = [ids[i : i + length] for i in range(0, count * length, length)]
    again = tokenizer("Ada has 12 red balls. ")["input_ids"]
    return [*rows, list(itertools.islice(itertools.cycle(again), length))]


@torch.no_grad()
def run_pieces(model, row, size):
    """Logits [T, V] of a text that is taken in by pieces, with the bounded cache."""
    cache, logits = DynamicMaskCache(model.config), []
    for start in range(0, len(row), size):
        ids = torch.tensor([row[start : start + size]])
        logits.append(model(ids, past_key_values=cache, use_cache=True).logits[0])
    return torch.cat(logits)


def make_backend(model, quantize, length, num_slots=1, accuracy=ACCURACY_LEVEL):
    """The graph of a format, with one thread."""
    graph = DogeGraph(model, WEIGHT_FORMATS[quantize], length)
    names = ("num_hidden_layers", "num_key_value_heads", "vocab_size", "keep_window_size")
    settings = {name: getattr(model.config, name) for name in names}
    settings |= {"head_size": model.config.head_dim, "max_length": length}
    proto = set_accuracy(graph.build(), accuracy)
    return OnnxBackend(proto.SerializeToString(), settings, num_slots=num_slots, threads=1)


def make_export(model, length):
    """The float32 graph, token by token."""
    backend = make_backend(model, "none", length, accuracy=1)

    def run(row):
        backend.clear(0)
        return torch.from_numpy(np.stack([backend.prefill(0, np.array([token])).copy() for token in row]))

    return run


def compare_slots(backend, rows):
    """Steps of texts whose logits in a batch differ from those of the text alone, and the largest difference."""
    starts = [len(row) * (number + 1) // (len(rows) + 2) for number, row in enumerate(rows)]
    steps, alone = len(rows[0]) - starts[-1], []
    for row, start in zip(rows, starts, strict=True):
        backend.clear(0)
        backend.prefill(0, np.array(row[:start]))
        alone.append(np.stack([backend.decode(1, np.array([row[start + k]]))[0].copy() for k in range(steps)]))
    for slot, (row, start) in enumerate(zip(rows, starts, strict=True)):
        backend.clear(slot)
        backend.prefill(slot, np.array(row[:start]))
    ids = ([row[start + k] for row, start in zip(rows, starts, strict=True)] for k in range(steps))
    together = np.stack([backend.decode(len(rows), np.array(step)).copy() for step in ids], axis=1)
    return np.abs(together - np.stack(alone)).max(axis=-1).ravel()


def compare_cuts(backend, rows, cuts):
    """Differences of the logits after prompts that are cut at these tokens, counted from the end, and after whole ones."""
    found = []
    for row in rows:
        prompt, ends = np.array(row[:200]), [200 - cut for cut in cuts] + [200]
        backend.clear(0)
        whole = backend.prefill(0, prompt)
        backend.clear(0)
        pieces = [backend.prefill(0, prompt[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        found.append(np.abs(pieces[-1] - whole).max())
    return np.array(found)


def compare_formats(model, rows, length):
    """Rows of the table of bits."""
    found = []
    for quantize in ("none", "int8", "int4"):
        backend = make_backend(model, quantize, length, num_slots=len(rows))
        ways = {f"{count} slots": compare_slots(backend, rows[:count]) for count in (2, len(rows))}
        ways["prompt in pieces of several tokens"] = compare_cuts(backend, rows, (130, 50, 2))
        ways["last token of the prompt alone"] = compare_cuts(backend, rows, (1,))
        for way, differences in ways.items():
            count = f"{(differences > 0).sum()} of {len(differences)}"
            found.append({"format": quantize, "way": way, "differ": count, "largest": differences.max().item()})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=384)
    args = parser.parse_args()
    trained = load_model(AutoModelForCausalLM, args.model).eval()
    window = trained.config.keep_window_size
    trained.model.rotary_emb.rope_type = "default"  # of a dynamic one the frequencies depend on the pieces
    rows = make_rows(load_tokenizer(args.model), args.rows, args.length)
    found = []
    for dtype, ranked in itertools.product((torch.float64, torch.float32, torch.bfloat16), ("bfloat16", "all digits")):
        model = copy.deepcopy(trained).to(dtype)
        ways = {
            "token by token": lambda row, model=model: run_pieces(model, row, 1),
            "pieces of 37": lambda row, model=model: run_pieces(model, row, 37),
        }
        if dtype == torch.float32 and ranked == "bfloat16":
            ways["exported"] = make_export(model, args.length)
        with rank_by(ranked):
            for way, run in ways.items():
                facts = {"weights": str(dtype).removeprefix("torch."), "ranked by": ranked, "way": way}
                found.append({**facts, **compare(model, run, rows, window)})
    report("exactness", found)
    report("bits of exports", compare_formats(trained, rows, args.length))


def rank_by(ranked):
    """Rank scores as they are where that is asked for."""
    stack = ExitStack()
    if ranked != "bfloat16":
        for module in RANKED_IN:
            stack.enter_context(patch.object(module, "round_for_ranking", lambda score: score.detach()))
    return stack


@torch.no_grad()
def compare(model, run, rows, window):
    """Largest differences of logits, and rows that are apart past w by over ten times what rounding does within it."""
    within, past, rows_apart = 0.0, 0.0, 0
    for row in rows:
        difference = (run(row).double() - model(torch.tensor([row])).logits[0].double()).abs().amax(dim=-1)
        within = max(within, difference[:window].max().item())
        worst = difference[window:].max().item()
        past, rows_apart = max(past, worst), rows_apart + (worst > 10 * max(within, 1e-9))
    return {"largest within w": within, "largest past w": past, "rows apart": f"{rows_apart} of {len(rows)}"}


if __name__ == "__main__":
    main()
