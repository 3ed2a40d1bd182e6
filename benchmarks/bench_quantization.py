"""What rounding the weights costs a trained model: bits, block sizes, and which parts are rounded.

Perplexity on held-out texts of the model with dequantised weights, in PyTorch: the rounding of activations is not in it.
"""

import argparse
import copy
import math

import torch
from common import report
from transformers import AutoModelForCausalLM

from small_doge.inference.quantization import quantize
from small_doge.models import load_model
from small_doge.processor.sources import open_source
from small_doge.utils.model_folder import load_tokenizer


PARTS = ("embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def read_rows(names, tokenizer, length, count):
    """Rows of `length` tokens from the texts, as many of each source."""
    rows = []
    for name in names:
        source, ids = open_source(name), []
        for record in (record for part in source.parts for record in source.read(part)):
            ids += tokenizer(record.row["text"], verbose=False)["input_ids"]
            if len(ids) >= length * count:
                break
        rows += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)][:count]
    return torch.tensor(rows)


@torch.no_grad()
def measure(model, rows):
    return sum(model(row[None], labels=row[None]).loss.item() for row in rows) / len(rows)


@torch.no_grad()
def round_parts(model, choose):
    """A copy whose matrices are rounded to the bits and block size that `choose(name)` gives, or left (None)."""
    rounded = copy.deepcopy(model)
    for name, parameter in rounded.named_parameters():
        form = choose(name) if parameter.dim() == 2 and any(part in name for part in PARTS) else None
        if form:
            parameter.copy_(torch.from_numpy(quantize(parameter.numpy(), *form).dequantize()))
    return rounded


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("--texts", nargs="+", required=True, help="held-out texts with a `text` in each row")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=16, help="of each source")
    args = parser.parse_args()
    model = load_model(AutoModelForCausalLM, args.model).eval()
    rows = read_rows(args.texts, load_tokenizer(args.model), args.length, args.rows)
    start = measure(model, rows)
    forms = {f"int{bits}, blocks of {size}": (bits, size) for bits in (8, 4) for size in (16, 32, 64, 128)}
    choices = {label: (lambda name, form=form: form) for label, form in forms.items()}
    for part in PARTS:
        choices[f"int4, {part} alone"] = lambda name, part=part: (4, 32) if part in name else None
    choices["int4, embed_tokens int8"] = lambda name: (8, 32) if "embed_tokens" in name else (4, 32)
    found = [{"weights": "float32", "perplexity": math.exp(start), "change_percent": 0.0}]
    for label, choose in choices.items():
        loss = measure(round_parts(model, choose), rows)
        change = 100 * (math.exp(loss - start) - 1)
        found.append({"weights": label, "perplexity": math.exp(loss), "change_percent": change})
    report("quantization", found)


if __name__ == "__main__":
    main()
