"""Tokenizers that are nearly those of a model."""

import json


def swap_two_tokens(folder):
    """Let two ids of a saved tokenizer stand for each other's text: as many tokens, and other ones."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[-2:]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(content), encoding="utf-8")
