"""What `eval perplexity` shows: tables, Markdown, and a picture by position."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..utils.markdown import write_table
from ..utils.plots import saved_figure
from .choices import ATTENTIONS


HEAD = ("attention", "bits per byte", "standard error", "perplexity", "nats per token", "against the first")


def list_attention_cells(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each attention, in the columns of `HEAD`."""
    rows = []
    for name, found in result["attentions"].items():
        difference, stderr = found.get("difference_bits_per_byte"), found.get("stderr_difference_bits_per_byte")
        against = "" if difference is None else f"{difference:+.4f}" + ("" if stderr is None else f" ± {stderr:.4f}")
        rows.append(
            [
                name,
                _show(found["bits_per_byte"], 4),
                _show(found["stderr_bits_per_byte"], 4),
                _show(found["perplexity"], 2),
                _show(found["nats_per_token"], 4),
                against,
            ]
        )
    return rows


def list_position_cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and a row for each bucket of positions: tokens, and the perplexity by each attention."""
    names = list(result["attentions"])
    first = result["attentions"][names[0]]["positions"]
    rows = [
        [
            name_bucket(bucket),
            f"{bucket['tokens']:,}",
            *(_show(result["attentions"][name]["positions"][place]["perplexity"], 2) for name in names),
            _show(bucket["bits_per_byte"], 4),
        ]
        for place, bucket in enumerate(first)
    ]
    return ["tokens before", "scored", *(f"perplexity, {name}" for name in names), f"bits per byte, {names[0]}"], rows


def list_source_cells(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each file: name, tokens, bytes, bits per byte and perplexity."""
    return [
        [
            Path(name).name,
            f"{found['tokens']:,}",
            "-" if found["bytes"] is None else f"{found['bytes']:,}",
            _show(found["bits_per_byte"], 4),
            _show(found["perplexity"], 2),
        ]
        for name, found in result["sources"].items()
    ]


SOURCE_HEAD = ("file", "tokens", "bytes", "bits per byte", "perplexity")


def name_bucket(bucket: dict[str, Any]) -> str:
    """Name a bucket by its first and last position."""
    return f"{bucket['from']:,} to {bucket['to']:,}"


def list_facts(result: dict[str, Any]) -> list[str]:
    """Return how the figures were measured, and what was left out."""
    first = next(iter(result["attentions"].values()))
    size = "an unknown number of" if first["bytes"] is None else f"{first['bytes']:,}"
    facts = [
        f"{first['tokens']:,} tokens scored, which stand for {size} bytes, in {result['documents']:,} documents, "
        + ("joined to one text" if result["joined"] else "each by itself")
        + f"; windows of {result['context']:,} tokens, each {result['stride']:,} further.",
        "A begin token is not scored. Where a text or an answer ends is scored, and stands for no bytes. Of a "
        "conversation, what the assistant says is scored and nothing else.",
    ]
    if len(result["attentions"]) > 1:
        told = "; ".join(f"{name}: {ATTENTIONS[name]}" for name in result["attentions"])
        facts.append(f"All by the same weights, with windows of {result['keep_window_size']:,} keys. {told}.")
    trained = result["trained_length"]
    if trained is not None and result["context"] > trained:
        facts.append(f"The model was trained on texts of up to {trained:,} tokens.")
    if result["max_tokens"] is not None:
        facts.append(f"Only the first {result['max_tokens']:,} tokens were scored.")
    if first["nats_per_token"] > math.log(result.get("vocab_size", math.inf)):
        facts.append(
            f"Guessing among the {result['vocab_size']:,} tokens predicts these texts better than the model does: it may be "
            "untrained, or the tokenizer another model's."
        )
    for reason, count in result["failed"].items():
        facts.append(f"{count:,} rows left out: {reason}.")
    machine = result["machine"]
    facts.append(
        f"Model {result['model_hash']}, commit {result['commit'] or 'unknown'}, {machine['processor']}, "
        f"{machine['cores']} cores, {result['seconds']:.0f} s."
    )
    return facts


def write_markdown(result: dict[str, Any], picture: str | None) -> str:
    """Write tables, the picture and facts in Markdown."""
    lines = [f"# Perplexity of {result['model']}", "", write_table(HEAD, list_attention_cells(result)), ""]
    lines += [write_table(*list_position_cells(result)), ""]
    if picture is not None:
        lines += [f"![Perplexity by position]({picture})", ""]
    if len(result["sources"]) > 1:
        lines += [write_table(SOURCE_HEAD, list_source_cells(result)), ""]
    return "\n".join([*lines, *(f"- {fact}" for fact in list_facts(result)), ""])


def plot_positions(result: dict[str, Any], path: str | Path) -> None:
    """Plot the perplexity by position of each attention, as a PNG."""
    with saved_figure(path, 7, 4) as figure:
        draw_positions(figure, result)
        figure.axes[0].set_title(f"{Path(result['model']).name}: perplexity by position")


def draw_positions(figure: Any, result: dict[str, Any]) -> None:
    """Draw the perplexity by position into a figure."""
    axes = figure.subplots()
    for (name, found), style in zip(result["attentions"].items(), ("o-", "s--", "^:"), strict=False):
        points = [(bucket["from"], bucket["perplexity"]) for bucket in found["positions"]]
        axes.plot(*zip(*points, strict=True), style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _label(axes.yaxis, [b["perplexity"] for f in result["attentions"].values() for b in f["positions"]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for length, name in ((result["keep_window_size"], "window"), (result["trained_length"], "trained length")):
        if length is not None and length < result["context"]:
            axes.axvline(length, color="gray", lw=0.8, ls=":")
            axes.annotate(
                f"{name} ",
                (length, 1),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="top",
                color="gray",
                size=8,
            )
    axes.set(xlabel="tokens before", ylabel="perplexity")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _label(axis: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis with plain numbers, few enough to be read."""
    narrow = max(values) / min(values) < 20
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _show(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"
