"""What is in a prepared data set: rows as the model sees them, and figures."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from matplotlib.ticker import EngFormatter
from transformers import PreTrainedTokenizerBase

from ..utils.plots import saved_figure
from .chat_encoding import encode_chat
from .encoder import IGNORED, choose_template
from .messages import Message


class Segment(NamedTuple):
    """A run of tokens of one kind: `learnt` (in the loss), `context` (read only), `rejected`, `padding`."""

    text: str
    kind: str


def is_prepared(columns: list[str]) -> bool:
    """Tell whether these are the columns of a stage."""
    return bool({"input_ids", "chosen", "solution", "messages"} & set(columns)) and "source" in columns


def split_segments(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[list[Segment]]:
    """Split a row into documents, each as runs of tokens that are learnt or not; for a preference, both answers.

    Args:
        row: of any stage.
        tokenizer: whose tokens or template it has.
    """
    if "input_ids" in row:
        return _split_tokens(row, tokenizer)
    if "chosen" in row:
        prompt = _render(tokenizer, row["prompt"], generation=True)
        answers = [_render(tokenizer, row["prompt"] + row[name]) for name in ("chosen", "rejected")]
        kinds = ("learnt", "rejected")
        return [
            [Segment(prompt, "context"), Segment(answer.removeprefix(prompt), kind)]
            for answer, kind in zip(answers, kinds, strict=True)
        ]
    if "solution" in row:
        prompt = _render(tokenizer, row["prompt"], generation=True)
        return [[Segment(prompt, "context")], [Segment(f"reference answer: {row['solution']}", "padding")]]
    return [[Segment(_render(tokenizer, row["messages"]), "context")]]


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], generation: bool = False) -> str:
    template = choose_template(tokenizer, with_answers=False)
    return tokenizer.decode(encode_chat(tokenizer, messages, add_generation_prompt=generation, template=template).ids)


def _split_tokens(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[list[Segment]]:
    tokens = np.asarray(row["input_ids"])
    labels = np.asarray(row.get("labels", row["input_ids"]))
    documents, start = [], 0
    for length in row["seq_lengths"]:
        learnt = labels[start : start + length] != IGNORED
        learnt[0] = False  # nothing before it could predict it
        edges = [0, *(np.flatnonzero(np.diff(learnt)) + 1).tolist(), length]
        documents.append(
            [
                Segment(tokenizer.decode(tokens[start + a : start + b].tolist()), "learnt" if learnt[a] else "context")
                for a, b in itertools.pairwise(edges)
            ]
        )
        start += length
    if len(tokens) > start:
        documents.append([Segment(f"{len(tokens) - start} tokens of padding", "padding")])
    return documents


def compute_statistics(rows: Dataset) -> dict[str, Any]:
    """Count rows, documents, tokens, and the share that is learnt, by source; lengths of documents; how full rows are.

    Args:
        rows: of any stage.
    """
    sources: dict[str, dict[str, int]] = {}
    lengths: list[np.ndarray] = []
    longest = 0
    columns = [c for c in ("seq_lengths", "labels", "num_tokens", "source") if c in rows.column_names]
    for batch in rows.select_columns(columns).iter(1000):
        names = batch.get("source") or ["all"] * len(next(iter(batch.values())))
        for index, name in enumerate(names):
            facts = sources.setdefault(name, {"rows": 0, "documents": 0, "tokens": 0, "learnt": 0})
            documents = batch["seq_lengths"][index] if "seq_lengths" in batch else [batch["num_tokens"][index]]
            size = sum(documents)
            longest = max(longest, size)
            facts["rows"] += 1
            facts["documents"] += len(documents)
            facts["tokens"] += size
            if "labels" in batch:
                facts["learnt"] += sum(label != IGNORED for label in batch["labels"][index])
            elif "seq_lengths" in batch:
                facts["learnt"] += size - len(documents)
            lengths.append(np.asarray(documents))
    joined = np.concatenate(lengths) if lengths else np.zeros(0, dtype=int)
    tokens = int(sum(f["tokens"] for f in sources.values()))
    quantiles = np.quantile(joined, [0.0, 0.1, 0.5, 0.9, 1.0]).astype(int).tolist() if len(joined) else []
    counts, edges = np.histogram(joined, bins=min(40, max(1, len(np.unique(joined)))))
    return {
        "rows": len(rows),
        "documents": len(joined),
        "tokens": tokens,
        "longest row": longest,
        "fill rate": round(tokens / max(1, len(rows) * longest), 4),
        "document lengths (0, 10, 50, 90, 100%)": quantiles,
        "histogram": {"counts": counts.tolist(), "edges": edges.round(1).tolist()},
        "sources": sources,
    }


def plot_statistics(statistics: dict[str, Any], path: str | Path, title: str) -> None:
    """Plot tokens by source and lengths of documents, as a PNG."""
    with saved_figure(path, 9, 4) as figure:
        left, right = figure.subplots(1, 2)
        names = list(statistics["sources"])
        shown = [name if len(name) < 28 else "…" + name[-27:] for name in names]
        learnt = [statistics["sources"][name]["learnt"] for name in names]
        total = [statistics["sources"][name]["tokens"] for name in names]
        left.barh(shown, total, color="lightgray", label="read only")
        if any(learnt):
            left.barh(shown, learnt, color="tab:green", label="learnt")
            left.legend()
        left.invert_yaxis()
        left.set_xlabel("tokens")
        left.xaxis.set_major_formatter(EngFormatter())
        edges = np.asarray(statistics["histogram"]["edges"])
        right.bar(edges[:-1], statistics["histogram"]["counts"], width=np.diff(edges), align="edge", color="tab:blue")
        right.set_xlabel("tokens of a document")
        right.set_ylabel("documents")
        figure.suptitle(f"{title}: {statistics['rows']:,} rows, {statistics['tokens']:,} tokens")
