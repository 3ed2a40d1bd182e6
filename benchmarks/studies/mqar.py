"""Multi-query associative recall (the task of Zoology, arXiv:2312.04927): how far back does each attention find a value?

A row gives pairs of a key and a value, then noise, and between the noise the keys again, each time in another place; at each
of these the model must say the key's value. A model that keeps w < T keys must keep the right ones through the noise.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from benchmarks.studies.attention import ATTENTION_NAMES, ATTENTIONS, build_model
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.presenting import group_rows, summary_table


HEAD_DIM = 32
SYMBOLS = 32  # keys that there are, and values, and tokens of noise
IGNORED = -100
SOLVED = 0.995
SHIFTED = " after a causal convolution of width 2 on the embeddings (so that a value knows its key)"


@dataclass(frozen=True)
class Task:
    """A difficulty: `length` tokens, a window, pairs to remember, and noise of tokens of its own or like the pairs."""

    length: int
    window: int
    pairs: int
    width: int
    noise: str = "own"


@dataclass(frozen=True)
class Scale:
    """What a run may cost."""

    tasks: dict[str, list[Task]]
    max_steps: int
    batch: int
    lr: float
    # On the window axis, dynamic mask attention is trained once more, for longer and with a lower rate; 0 for not at all.
    more_steps: int
    lower_lr: float
    layers: int = 2
    shifted: bool = False
    test_rows: int = 512


def make_rows(rng: np.random.Generator, count: int, task: Task) -> dict[str, np.ndarray]:
    """Rows of tokens [count, T], the right values at the queries (elsewhere -100), and how far back each value stands.

    Tokens: keys, then values, then noise of its own, `SYMBOLS` of each. Half of the places after the pairs, but at most a
    quarter of the row, are queries. Noise like the pairs is drawn from the values and from keys without a pair.
    """
    start = 2 * task.pairs
    asked = min((task.length - start) // 2, task.length // 4)
    keys = rng.random((count, SYMBOLS)).argsort(axis=1)
    values = rng.integers(SYMBOLS, 2 * SYMBOLS, (count, task.pairs))
    ids = rng.integers(2 * SYMBOLS, 3 * SYMBOLS, (count, task.length))
    if task.noise == "alike":
        others = np.concatenate([keys[:, task.pairs :], np.tile(np.arange(SYMBOLS, 2 * SYMBOLS), (count, 1))], axis=1)
        ids = np.take_along_axis(others, rng.integers(0, others.shape[1], ids.shape), axis=1)
    ids[:, 0:start:2], ids[:, 1:start:2] = keys[:, : task.pairs], values
    places = start + np.sort(rng.random((count, task.length - start)).argsort(axis=1)[:, :asked], axis=1)
    which = rng.integers(0, task.pairs, (count, asked))
    np.put_along_axis(ids, places, np.take_along_axis(keys, which, axis=1), axis=1)
    answers = np.full_like(ids, IGNORED)
    np.put_along_axis(answers, places, np.take_along_axis(values, which, axis=1), axis=1)
    distance = np.zeros_like(ids)
    np.put_along_axis(distance, places, places - (2 * which + 1), axis=1)
    return {"input_ids": ids, "shift_labels": answers, "distance": distance}


def draw_batches(task: Task, batch: int, seed: int):
    """Batches without end; no row comes twice but by chance."""
    rng = np.random.default_rng(seed)
    while True:
        rows = make_rows(rng, batch, task)
        yield {name: rows[name] for name in ("input_ids", "shift_labels")}


@torch.no_grad()
def measure(model: torch.nn.Module, rows: dict[str, np.ndarray], window: int, device: str) -> dict[str, float]:
    """Share of right answers: of all, of those whose value stands within the window, and of those past it."""
    right = []
    for first in range(0, len(rows["input_ids"]), 64):
        logits = model(torch.as_tensor(rows["input_ids"][first : first + 64], device=device)).logits
        right.append(logits.argmax(dim=-1).cpu().numpy() == rows["shift_labels"][first : first + 64])
    asked, far = rows["shift_labels"] != IGNORED, rows["distance"] >= window
    right = np.concatenate(right)
    shares = {"all": right[asked], "near": right[asked & ~far], "far": right[asked & far]}
    return {name: float(part.mean()) for name, part in shares.items() if part.size}


def run(setting: dict, scale: Scale, device: str) -> dict:
    """Train one model on one task and measure it on rows that it has not seen."""
    task = Task(**{name: setting[name] for name in Task.__dataclass_fields__})
    model = build_model(
        setting["attention"],
        task.length,
        task.window,
        shifted=scale.shifted,
        vocab_size=3 * SYMBOLS,
        hidden_size=task.width,
        intermediate_size=task.width,
        num_hidden_layers=scale.layers,
        num_attention_heads=max(1, task.width // HEAD_DIM),
    )
    test = make_rows(np.random.default_rng(10**6), scale.test_rows, task)
    one_window = setting["attention"] == "window" and scale.layers == 1
    check = {name: value[:128] for name, value in test.items()}
    points = train(
        model,
        draw_batches(task, scale.batch, setting["seed"]),
        setting["max_steps"],
        setting["lr"],
        device=device,
        evaluate=lambda: measure(model, check, task.window, device),
        every=max(1, setting["max_steps"] // 20),
        # Of one layer's sliding window nothing past the window can be asked.
        stop=lambda point: point["near" if one_window else "all"] >= SOLVED,
        label=f"{setting['attention']} T={task.length} w={task.window} D={task.width}",
    )
    curve = [(point["step"], round(point["all"], 4)) for point in points]
    return {**measure(model, test, task.window, device), "steps": points[-1]["step"], "curve": curve}


# A single layer sees what its own heads kept, and nothing that a layer before it handed on.
ONE_LAYER: dict = {"batch": 16, "lr": 3e-3, "more_steps": 0, "lower_lr": 1e-3, "layers": 1, "shifted": True}
SCALES = {
    "smoke": Scale(
        {"length": [Task(16, 8, 2, 32), Task(24, 8, 2, 32)]},
        max_steps=4,
        batch=8,
        lr=3e-3,
        more_steps=8,
        lower_lr=1e-3,
        test_rows=16,
    ),
    "cpu": Scale(
        {
            "length": [Task(32, 8, 4, 64), Task(64, 16, 4, 64)],
            "width": [Task(32, 8, 4, 32), Task(32, 8, 4, 64)],
            "window": [Task(32, 4, 8, 64), Task(32, 8, 8, 64), Task(32, 16, 8, 64)],
            "noise": [Task(32, 8, 4, 64), Task(32, 8, 4, 64, "alike")],
        },
        **ONE_LAYER,
        max_steps=400,
    ),
    "long": Scale(
        {"length": [Task(length, length // 4, 8, 64) for length in (2048, 1024, 512)]},
        **ONE_LAYER,
        max_steps=600,
        test_rows=128,
    ),
    "gpu": Scale(
        {
            "length": [Task(length, length // 4, 16, 128) for length in (256, 512, 1024, 2048)],
            "width": [Task(512, 128, 16, width) for width in (64, 128, 256)],
            "window": [Task(512, window, 16, 128) for window in (4, 8, 16, 32)],
            "noise": [Task(512, 128, 16, 128), Task(512, 128, 16, 128, "alike")],
        },
        max_steps=20_000,
        batch=64,
        lr=1e-3,
        more_steps=80_000,
        lower_lr=3e-4,
    ),
}


def list_settings(scale: Scale, seeds: list[int]) -> list[dict]:
    """Every run, the longer ones first; a whole seed before the next, so that a study cut short has whole seeds."""
    fixed = {name: value for name, value in asdict(scale).items() if name not in ("tasks", "more_steps", "lower_lr")}
    tasks = list(dict.fromkeys(task for tasks in scale.tasks.values() for task in tasks))
    kinds = [{"attention": attention} for attention in ATTENTIONS]
    longer = [{"attention": "dma", "max_steps": scale.more_steps, "lr": scale.lower_lr}] if scale.more_steps else []
    return [
        {**asdict(task), **fixed, **kind, "seed": seed}
        for group, members in ((longer, scale.tasks.get("window", tasks)), (kinds, tasks))
        for seed in seeds
        for task in members
        for kind in group
    ]


def make_panels(scale: Scale, rows: list[dict]) -> dict[str, dict]:
    """Accuracy past the window along each axis of numbers, the other settings fixed."""
    panels = {}
    for axis, tasks in scale.tasks.items():
        if axis == "noise":
            continue
        fixed = ", ".join(f"{name} {value}" for name, value in asdict(tasks[0]).items() if name not in (axis, "noise"))
        if axis == "length":
            fixed = f"w = T / {tasks[0].length // tasks[0].window}, pairs {tasks[0].pairs}, width {tasks[0].width}"
        mine = [row for row in rows if Task(**{name: row[name] for name in Task.__dataclass_fields__}) in tasks]
        values = group_rows(mine, ("attention", "max_steps", axis), "far")
        lines = dict.fromkeys((row["attention"], row["max_steps"]) for row in mine)
        panels[f"by {axis}\n({fixed})"] = {
            f"{ATTENTION_NAMES[attention]}, {steps:,} steps": {
                at: seen for (*line, at), seen in values.items() if line == [attention, steps]
            }
            for attention, steps in lines
        }
    return panels


def make_curves(scale: Scale, rows: list[dict]) -> dict[str, dict]:
    """How each seed's accuracy came, and went, in the shortest training of the tasks of the window axis."""
    panels = {}
    for task in scale.tasks.get("window", []):
        mine = [row for row in rows if {**row, **asdict(task)} == row and row["max_steps"] == scale.max_steps]
        panels[f"w = {task.window}, {task.pairs} pairs in {task.length} tokens"] = {
            f"{ATTENTION_NAMES[row['attention']]}, seed {row['seed']}": {step: [right] for step, right in row["curve"]}
            for row in sorted(mine, key=lambda row: ATTENTIONS.index(row["attention"]))
            if row["attention"] == "dma" or row["seed"] == rows[0]["seed"]
        }
    return panels


def main(argv: list[str] | None = None) -> None:
    args = build_parser("mqar", __doc__, list(SCALES)).parse_args(argv)
    scale = SCALES[args.scale]
    study = Study("mqar", args, argv)
    rows = study.run_all(list_settings(scale, args.seeds), lambda setting: run(setting, scale, args.device))
    order = list(Task.__dataclass_fields__)
    rows.sort(key=lambda row: [row[name] for name in order])
    parts = [
        f"{__doc__.partition(chr(10))[2].strip()}\n\n"
        f"{scale.layers} layer{'s' * (scale.layers > 1)}{SHIFTED * scale.shifted}, heads of {HEAD_DIM}, {SYMBOLS} keys, {SYMBOLS} values and {SYMBOLS} tokens of noise; {scale.batch} "
        f"rows a step, at most `max_steps` steps with learning rate `lr`, fewer where {SOLVED:.1%} of 128 rows' answers are "
        f"right (of a single layer's sliding window: those within the window). Measured on {scale.test_rows} rows that no training saw. `far` counts queries whose value stands w or more tokens "
        "back, `near` the others. Mean ± standard deviation of the seeds. A model that knows which values stand in the row and "
        "guesses among them has one right answer in as many as there are pairs.",
        study.show_picture(make_panels(scale, rows), "length, width, window", "accuracy past w", y_range=(0, 1.05)),
        *(
            [study.show_picture(curves, "steps", "accuracy", suffix="-curves", y_range=(0, 1.05))]
            if (curves := make_curves(scale, rows))
            else []
        ),
        summary_table(rows, [*order, "attention", "max_steps", "lr"], {"all": 3, "near": 3, "far": 3, "steps": 0}),
    ]
    study.write("Multi-query associative recall", parts, [{**row, "curve": None} for row in rows])


if __name__ == "__main__":
    main()
