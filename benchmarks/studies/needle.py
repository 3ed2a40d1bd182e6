"""A needle in a haystack: does a model that keeps w keys find what stood far more than w tokens ago?

A row is noise, the hay, with one marked symbol somewhere, the needle; at the end the model is asked for it. Small models are
trained on rows of one length, with the needle anywhere, and tested with it at every distance, in rows of other lengths too. With
decoys, the hay holds the same symbols without the mark, so that only the token before it tells the needle.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from benchmarks.studies.attention import ATTENTION_NAMES, ATTENTIONS, build_model
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.presenting import group_rows, summary_table


HAY = 64  # tokens of noise, symbols
SYMBOLS = 32
MARK, QUESTION = HAY + SYMBOLS, HAY + SYMBOLS + 1
IGNORED = -100
SOLVED = 0.995
DISTANCES = 10
SHIFTED = " after a causal convolution of width 2 on the embeddings (so that a symbol knows its mark)"
QUESTIONS = 8  # in a row of training


@dataclass(frozen=True)
class Scale:
    """What a run may cost."""

    length: int
    window: int
    width: int
    max_steps: int
    batch: int
    lr: float
    test_lengths: tuple[int, ...]
    decoys: tuple[float, ...] = (0.0, 0.25)  # their share of the hay
    layers: int = 2
    shifted: bool = False
    test_rows: int = 64  # for each length and distance


SCALES = {
    "smoke": Scale(24, 8, 32, 4, 8, 3e-3, (16, 24), test_rows=8),
    "cpu": Scale(128, 16, 64, 200, 16, 3e-3, (32, 128, 512), layers=1, shifted=True),
    "gpu": Scale(4096, 256, 256, 10_000, 16, 1e-3, (1024, 2048, 4096, 8192), layers=4),
}


def make_rows(
    rng: np.random.Generator, count: int, length: int, decoys: float, distance: int | None = None, questions: int = 1
) -> dict[str, np.ndarray]:
    """Rows of tokens [count, T] that end with the question, and the needle's symbol as the right answer there.

    Args:
        decoys: share of the hay that is symbols without the mark.
        distance: tokens from the needle's symbol to the question, at most T - 2; any if None.
        questions: at most so many, the others anywhere after the needle; training learns more from a row that way.
    """
    ids = rng.integers(0, HAY, (count, length))
    ids = np.where(rng.random(ids.shape) < decoys, rng.integers(HAY, HAY + SYMBOLS, ids.shape), ids)
    # The mark's place: the symbol follows it, and the question is the last token.
    at = rng.integers(0, length - 2, count) if distance is None else np.full(count, length - 2 - distance)
    symbols = rng.integers(HAY, HAY + SYMBOLS, count)
    row = np.arange(count)
    ids[row, at], ids[row, at + 1] = MARK, symbols
    asked = rng.integers((at + 2)[:, None], length, (count, questions))
    asked[:, -1] = length - 1
    answers = np.full_like(ids, IGNORED)
    ids[row[:, None], asked], answers[row[:, None], asked] = QUESTION, symbols[:, None]
    return {"input_ids": ids, "shift_labels": answers}


def draw_batches(scale: Scale, decoys: float, seed: int):
    """Batches without end; no row comes twice but by chance."""
    rng = np.random.default_rng(seed)
    while True:
        yield make_rows(rng, scale.batch, scale.length, decoys, questions=QUESTIONS)


@torch.no_grad()
def measure(model: torch.nn.Module, rows: dict[str, np.ndarray], device: str) -> float:
    """Share of right answers."""
    logits = model(torch.as_tensor(rows["input_ids"], device=device), logits_to_keep=1).logits[:, 0]
    return float((logits.argmax(dim=-1).cpu().numpy() == rows["shift_labels"][:, -1]).mean())


def run(setting: dict, scale: Scale, device: str) -> dict:
    """Train one model, and test it by length and distance."""
    model = build_model(
        setting["attention"],
        max(scale.test_lengths) if setting["attention"] == "full" else scale.length,
        scale.window,
        shifted=scale.shifted,
        vocab_size=HAY + SYMBOLS + 2,
        hidden_size=scale.width,
        intermediate_size=scale.width,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.width // 32,
    )
    decoys = setting["decoys"]
    check = make_rows(np.random.default_rng(10**6), 128, scale.length, decoys)
    points = train(
        model,
        draw_batches(scale, decoys, setting["seed"]),
        scale.max_steps,
        scale.lr,
        device=device,
        evaluate=lambda: {"found": measure(model, check, device)},
        every=max(1, scale.max_steps // 10),
        stop=lambda point: point["found"] >= SOLVED,
        label=f"{setting['attention']} decoys={decoys}",
    )
    rng = np.random.default_rng(10**6 + 1)
    found = {
        length: {
            distance: measure(model, make_rows(rng, scale.test_rows, length, decoys, distance), device)
            for distance in choose_distances(length)
        }
        for length in scale.test_lengths
    }
    found = json.loads(json.dumps(found))  # keys as the file of the runs gives them back
    return {"found": found, "steps": points[-1]["step"], "curve": [(p["step"], p["found"]) for p in points]}


def choose_distances(length: int) -> list[int]:
    """Distances to test in a row of `length` tokens, closer together near the question."""
    return sorted({round(distance) for distance in np.geomspace(1, length - 2, DISTANCES)})


def list_points(rows: list[dict]) -> list[dict]:
    """A row for each run, length and distance."""
    facts = ("decoys", "attention", "seed", "steps")
    return [
        {**{name: row[name] for name in facts}, "length": int(length), "distance": int(distance), "found": found}
        for row in rows
        for length, by_distance in row["found"].items()
        for distance, found in by_distance.items()
    ]


def summarise(points: list[dict], window: int) -> list[dict]:
    """A row for each run and length: found within the window and past it, each distance counting alike."""
    parts: dict[tuple, dict[str, list[float]]] = {}
    facts = ("decoys", "length", "attention", "seed", "steps")
    for point in points:
        part = parts.setdefault(tuple(point[name] for name in facts), {"within w": [], "past w": []})
        part["past w" if point["distance"] >= window else "within w"].append(point["found"])
    return [
        {**dict(zip(facts, key, strict=True)), **{name: float(np.mean(found)) for name, found in part.items()}}
        for key, part in sorted(parts.items())
    ]


def make_panels(points: list[dict], scale: Scale, decoys: float) -> dict[str, dict]:
    """A panel for each length: needles found by distance."""
    groups = group_rows(points, ("attention", "decoys", "length", "distance"), "found")
    return {
        f"{length} tokens, {decoys:.0%} decoys": {
            name: {at: found for (*key, at), found in groups.items() if key == [attention, decoys, length]}
            for attention, name in ATTENTION_NAMES.items()
        }
        for length in scale.test_lengths
    }


def main(argv: list[str] | None = None) -> None:
    args = build_parser("needle", __doc__).parse_args(argv)
    scale = SCALES[args.scale]
    study = Study("needle", args, argv)
    settings = [
        {**asdict(scale), "decoys": decoys, "attention": attention, "seed": seed}
        for seed in args.seeds
        for decoys in scale.decoys
        for attention in ATTENTIONS
    ]
    rows = study.run_all(settings, lambda setting: run(setting, scale, args.device))
    parts = [
        f"{__doc__.partition(chr(10))[2].strip()}\n\n"
        f"{scale.layers} layer{'s' * (scale.layers > 1)} of width {scale.width}{SHIFTED * scale.shifted}, heads of 32, w = {scale.window}; {HAY} tokens of noise, {SYMBOLS} symbols; trained "
        f"on rows of {scale.length} tokens with at most {QUESTIONS} questions each, {scale.batch} rows a step, learning rate {scale.lr:g}, at "
        f"most {scale.max_steps:,} steps, fewer where {SOLVED:.1%} of 128 rows are right. Tested on {scale.test_rows} new rows for each of "
        f"{DISTANCES} distances; the dotted line is w. Guessing among the symbols finds {1 / SYMBOLS:.3f}. Mean ± standard deviation of the seeds."
    ]
    points = list_points(rows)
    for decoys in scale.decoys:
        picture = study.show_picture(
            make_panels(points, scale, decoys),
            "tokens from needle to question",
            "needles found",
            suffix=f"-decoys-{decoys * 100:.0f}" if decoys else "",
            log_x=True,
            y_range=(0, 1.05),
            mark=scale.window,
        )
        parts.append(picture)
    summary = summarise(points, scale.window)
    parts.append(summary_table(summary, ["decoys", "length", "attention"], {"within w": 3, "past w": 3, "steps": 0}))
    study.write("A needle in a haystack", parts, summary)


if __name__ == "__main__":
    main()
