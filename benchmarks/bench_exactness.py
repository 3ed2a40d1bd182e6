"""How far ways of computing the same logits are apart on a trained model, within the window and past it.

Each way (token by token with the bounded cache, in pieces, exported) is compared with one forward pass of the whole text,
with scores ranked in bfloat16, as everything here does, and by all their digits.
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
from small_doge.inference.graph_weights import WEIGHT_FORMATS
from small_doge.inference.onnx_backend import OnnxBackend
from small_doge.models import load_model
from small_doge.processor.corpus import iterate_mixture
from small_doge.utils.model_folder import load_tokenizer


RANKED_IN = [import_module(f"small_doge.ops.dynamic_mask_attention.{n}") for n in ("masking", "reference", "decode")]
UNSEEN = 900_000


def make_rows(tokenizer, count, length):
    """Rows of texts that the model has not seen, and one that says the same again and again."""
    texts = iterate_mixture(100 * count, start=UNSEEN)
    ids = list(itertools.islice((i for text in texts for i in tokenizer(text)["input_ids"]), count * length))
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


def make_export(model, length):
    """The float32 graph, token by token."""
    graph = DogeGraph(model, WEIGHT_FORMATS["none"], length)
    names = ("num_hidden_layers", "num_key_value_heads", "vocab_size", "keep_window_size")
    settings = {name: getattr(model.config, name) for name in names}
    settings |= {"head_size": model.config.head_dim, "max_length": length}
    backend = OnnxBackend(set_accuracy(graph.build(), 1).SerializeToString(), settings, num_slots=1, threads=1)

    def run(row):
        backend.clear(0)
        return torch.from_numpy(np.stack([backend.prefill(0, np.array([token])).copy() for token in row]))

    return run


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
