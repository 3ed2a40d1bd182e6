"""Language modelling on real texts: the same Doge with dynamic mask attention, full attention or a sliding window.

All see the same tokens in the same order, from the same initial weights. The loss on held-out rows is told by position: within the
first w tokens every attention keeps all keys. `biased` is the dynamic mask with w = T: the scores bias the softmax, and nothing is
dropped.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.studies.attention import ATTENTION_NAMES, BIASED, build_model
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.presenting import group_rows, summary_table
from benchmarks.studies.token_rows import draw_batches, read_tokens

from small_doge.utils.model_folder import load_tokenizer


NAMES = {**ATTENTION_NAMES, BIASED: "dynamic mask, w = T"}


@dataclass(frozen=True)
class Scale:
    """What a run may cost."""

    length: int
    window: int
    width: int
    layers: int
    max_steps: int
    batch: int
    lr: float
    held_out_rows: int = 128
    points: int = 8


SCALES = {
    "smoke": Scale(32, 8, 32, 1, 4, 4, 3e-3, held_out_rows=8, points=2),
    "cpu": Scale(256, 32, 64, 2, 200, 8, 5e-3, held_out_rows=64, points=4),
    "gpu": Scale(4096, 512, 512, 12, 20_000, 32, 2e-3, held_out_rows=512, points=40),
}


@torch.no_grad()
def measure(model: torch.nn.Module, rows: np.ndarray, window: int, device: str) -> dict[str, float]:
    """Mean loss of held-out tokens: of all, of those within the first w of a row, and of those past them."""
    losses = []
    for first in range(0, len(rows), 8):
        ids = torch.as_tensor(rows[first : first + 8], device=device)
        logits = model(ids).logits[:, :-1].float()
        losses.append(F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu())
    loss = torch.cat(losses).double()
    # The token at position i is predicted from i tokens.
    return {
        "all": loss.mean().item(),
        "first w": loss[:, :window].mean().item(),
        "past w": loss[:, window:].mean().item(),
    }


def run(setting: dict, scale: Scale, data: tuple[np.ndarray, np.ndarray], vocab_size: int, device: str) -> dict:
    """Train one model, and measure it on rows of documents that no training saw."""
    rows, held_out = data
    model = build_model(
        setting["attention"],
        scale.length,
        scale.window,
        vocab_size=vocab_size,
        hidden_size=scale.width,
        intermediate_size=2 * scale.width,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.width // 32,
    )
    points = train(
        model,
        draw_batches(rows, scale.batch, setting["seed"]),
        scale.max_steps,
        scale.lr,
        device=device,
        evaluate=lambda: measure(model, held_out, scale.window, device),
        every=max(1, scale.max_steps // scale.points),
        label=setting["attention"],
    )
    last = {name: points[-1][name] for name in ("all", "first w", "past w", "tokens", "seconds")}
    return {
        **last,
        "parameters": model.num_parameters(),
        "curve": [[p["tokens"], p["all"], p["past w"]] for p in points],
    }


def subtract_full(rows: list[dict]) -> list[dict]:
    """The differences to full attention of the same seed, which saw the same rows in the same order."""
    full = {row["seed"]: row for row in rows if row["attention"] == "full"}
    return [
        {**row, **{f"{part}, less full": row[part] - full[row["seed"]][part] for part in ("all", "first w", "past w")}}
        for row in rows
    ]


def main(argv: list[str] | None = None) -> None:
    parser = build_parser("attention_lm", __doc__)
    parser.add_argument(
        "--data", nargs="+", required=True, help="files, folders or names of data sets, as in small-doge"
    )
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    args = parser.parse_args(argv)
    scale = SCALES[args.scale]
    study = Study("attention_lm", args, argv)
    data = read_tokens(args.data, args.tokenizer, scale.length, scale.max_steps * scale.batch, scale.held_out_rows)
    vocab_size = len(load_tokenizer(args.tokenizer))
    common = {**asdict(scale), "data": args.data, "tokenizer": args.tokenizer, "vocab_size": vocab_size}
    settings = [{**common, "attention": attention, "seed": seed} for seed in args.seeds for attention in NAMES]
    rows = subtract_full(study.run_all(settings, lambda setting: run(setting, scale, data, vocab_size, args.device)))
    curve = [
        {"attention": row["attention"], "tokens": tokens, "all": whole, "past w": past}
        for row in rows
        for tokens, whole, past in row["curve"]
    ]
    panels = {}
    for part, title in (("all", "all positions"), ("past w", f"past the first {scale.window}")):
        groups = group_rows(curve, ("attention", "tokens"), part)
        panels[title] = {
            name: {tokens: found for (kind, tokens), found in groups.items() if kind == attention}
            for attention, name in NAMES.items()
        }
    summary = [
        {name: value for name, value in row.items() if name not in ("curve", "data", "tokenizer")} for row in rows
    ]
    losses = {"all": 4, "first w": 4, "past w": 4}
    differences = [row for row in summary if row["attention"] != "full"]
    parts = [
        f"{__doc__.partition(chr(10))[2].strip()}\n\n"
        f"{scale.layers} layers of width {scale.width}, heads of 32, {rows[0]['parameters']:,} parameters, vocabulary of {vocab_size:,}; "
        f"rows of {scale.length} tokens, w = {scale.window}; {rows[0]['tokens']:,} tokens of training in {scale.max_steps:,} steps, "
        f"learning rate {scale.lr:g}; {scale.held_out_rows} held-out rows. Losses are nats per token, seconds those of training. Mean ± "
        "standard deviation of the seeds.",
        study.show_picture(panels, "tokens of training", "held-out loss"),
        summary_table(summary, ["attention"], {**losses, "seconds": 0}),
        "Differences to full attention with the same seed:",
        summary_table(differences, ["attention"], {f"{name}, less full": 4 for name in losses}),
        "## Seeds",
        summary_table(summary, ["attention", "seed"], losses),
    ]
    study.write("Attention in a language model", parts, summary)


if __name__ == "__main__":
    main()
