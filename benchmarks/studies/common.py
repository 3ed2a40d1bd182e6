"""What the studies share: arguments, runs that are kept, result files, and training.

Tables and pictures are in `presenting`, rows of tokens in `token_rows`. A study is a list of runs. Each run's result is a line of a file as soon as it is there, so that a study which was killed
goes on with its next run when the same command is given again.
"""

import argparse
import datetime
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from benchmarks.common import report
from benchmarks.studies.presenting import draw_lines
from tqdm import tqdm

from small_doge.utils.errors import UserError
from small_doge.utils.files import write_text
from small_doge.utils.hardware import describe_device
from small_doge.utils.scheduler import compute_wsd_factor, split_steps


RESULTS = Path("benchmarks/results")
KEPT = Path("runs/studies")
SCALES = ("smoke", "cpu", "gpu")


def build_parser(name: str, description: str, scales: Sequence[str] = SCALES) -> argparse.ArgumentParser:
    """The options of every study; a study adds its own."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.studies.{name}", description=description)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument(
        "--scale", default="cpu", choices=scales, help="cpu: two cores; gpu: larger; smoke: seconds, says nothing"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help=f"result file, Markdown; by default in {RESULTS}")
    parser.add_argument("--resume", type=Path, help=f"file of the runs that are done; by default in {KEPT}")
    return parser


class Study:
    """Runs what is not done yet, keeps every result, and writes the result file."""

    def __init__(self, name: str, args: argparse.Namespace, argv: Sequence[str] | None = None) -> None:
        self.name, self.args = name, args
        self.command = shlex.join(
            ["python", "-m", f"benchmarks.studies.{name}", *(sys.argv[1:] if argv is None else argv)]
        )
        if args.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {args.device}: PyTorch sees no CUDA device here; use --device cpu")
        self.kept = args.resume or KEPT / f"{name}.jsonl"
        self.output = (
            args.output
            or RESULTS
            / f"study-{name.replace(chr(95), chr(45))}_{machine_slug(args.device)}_{datetime.date.today():%Y%m}.md"
        )
        self.runs: list[dict] = []

    def run_all(self, settings: list[dict], run: Callable[[dict], dict]) -> list[dict]:
        """Run every setting that has no result yet; rows of setting and result, in the order of `settings`.

        A setting has all that its result hangs on (the seed and the scale too) but the device, so that another one, or
        another device, is another run.
        """
        device = {"device": self.args.device}
        keys = [_key({**device, **setting}) for setting in settings]
        done = self._read_done()
        missing = [(key, setting) for key, setting in zip(keys, settings, strict=True) if key not in done]
        if len(missing) < len(settings):
            print(f"{len(settings) - len(missing)} of {len(settings)} runs are in {self.kept}", flush=True)
        for key, setting in tqdm(missing, desc=self.name, unit="run", mininterval=10):
            torch.manual_seed(setting["seed"])
            start = time.perf_counter()
            result = run(setting)
            seconds = time.perf_counter() - start
            line = {
                "setting": setting,
                **device,
                "result": result,
                "seconds": seconds,
                "commit": describe_commit(),
                "machine": describe_machine(self.args.device),
            }
            done[key] = line
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            with open(self.kept, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.runs = [done[key] for key in keys]
        return [{**line["setting"], **line["result"]} for line in self.runs]

    def _read_done(self) -> dict[str, dict]:
        if not self.kept.exists():
            return {}
        lines = self.kept.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # killed while it wrote: that run is made again
            write_text(self.kept, "".join(lines[:-1]))
            lines.pop()
        return {
            _key({"device": line.get("device", "cpu"), **line["setting"]}): line for line in map(json.loads, lines)
        }

    def write(self, title: str, parts: list[str], rows: list[dict]) -> Path:
        """Write the result file: command, commit, machine and time, then the parts. `rows` end the output as JSON."""
        minutes = sum(line["seconds"] for line in self.runs) / 60
        head = [
            f"`{self.command}`, commit {_unique(self.runs, 'commit')}, {datetime.date.today():%B %d, %Y}.",
            f"Machine: {_unique(self.runs, 'machine')}. {len(self.runs)} runs, {minutes:.1f} minutes in all; seeds "
            f"{', '.join(map(str, self.args.seeds))}; `--scale {self.args.scale}`"
            + ("; `--scale gpu` is the larger setting." if self.args.scale != "gpu" else "."),
        ]
        write_text(self.output, "\n\n".join([f"# {title}", "\n".join(head), *parts]) + "\n")
        report(f"study-{self.name}", rows)
        print(f"written: {self.output}")
        return self.output

    def picture_path(self, suffix: str = "") -> Path:
        """Where a picture beside the result file goes."""
        return self.output.with_name(f"{self.output.stem}{suffix}.png")

    def show_picture(self, panels: dict[str, dict], x_label: str, y_label: str, suffix: str = "", **options) -> str:
        """Draw lines (see `draw_lines`) beside the result file; the Markdown that shows them."""
        path = self.picture_path(suffix)
        draw_lines(path, panels, x_label, y_label, **options)
        return f"![{y_label} by {x_label}]({path.name})"


def train(
    model: torch.nn.Module,
    batches: Iterable[dict],
    steps: int,
    lr: float,
    *,
    schedule: Callable[[int], float] | None = None,
    weight_decay: float = 0.01,
    device: str = "cpu",
    optimizer: torch.optim.Optimizer | None = None,
    evaluate: Callable[[], dict] | None = None,
    every: int = 0,
    stop: Callable[[dict], bool] | None = None,
    label: str = "training",
) -> list[dict]:
    """Train with AdamW; points of the curve: step, tokens, seconds (of training alone), loss since the last point.

    Args:
        batches: as many as `steps` at least; keyword arguments of the model, as arrays or tensors.
        schedule: share of `lr` at a step; by default 10% warm-up, and 20% linear decay to 0.
        optimizer: one to go on with, in place of a new AdamW.
        evaluate: its facts join every point.
        every: steps between points; one at the end if 0.
        stop: told each point; true ends the training.
    """
    model.to(device).train()
    if optimizer is None:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )
    schedule = schedule or default_schedule(steps)
    points: list[dict] = []
    tokens, seconds, losses = 0, 0.0, []
    progress = tqdm(zip(range(steps), batches, strict=False), total=steps, desc=label, leave=False, mininterval=5)
    for step, batch in progress:
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step)
        tensors = {name: torch.as_tensor(value, device=device) for name, value in batch.items()}
        loss = model(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds += time.perf_counter() - start
        tokens += tensors["input_ids"].numel()
        if step + 1 == steps or (every and (step + 1) % every == 0):
            point = {"step": step + 1, "tokens": tokens, "seconds": seconds, "loss": statistics.fmean(losses)}
            if evaluate:
                model.eval()
                point |= evaluate()
                model.train()
            points.append(point)
            progress.set_postfix({name: f"{value:.3f}" for name, value in point.items() if isinstance(value, float)})
            losses = []
            if stop and stop(point):
                break
    else:
        if not points or points[-1]["step"] < steps:
            raise UserError(f"the batches end before step {steps}: give more of them, or train for fewer steps")
    model.eval()
    return points


def default_schedule(steps: int) -> Callable[[int], float]:
    """10% warm-up, stable, 20% linear decay. It begins above 0, so that no step is lost."""
    warmup, stable, decay = split_steps(steps, 0.1, 0.2)
    return lambda step: compute_wsd_factor(step + 1, warmup, stable, decay)


def machine_slug(device: str) -> str:
    """The name of the machine in the names of result files, such as amd-epyc-2-cores-avx2."""
    facts = describe_device()
    words = f"{facts['processor']} {facts['cores']} cores {facts['instructions']}"
    if device.startswith("cuda"):
        words = torch.cuda.get_device_name(device)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def describe_machine(device: str) -> str:
    """Processor, accelerator, threads and PyTorch, as result files name them."""
    facts = describe_device()
    accelerator = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['instructions']}, {facts['memory_gib']} GiB"
        f"{accelerator}; {facts['threads']} thread{'s' * (facts['threads'] > 1)}; torch {torch.__version__}"
    )


def describe_commit() -> str:
    """The commit that runs, marked where its files were changed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    source = ["--", ":/src", ":/benchmarks", ":(top,exclude)benchmarks/results"]
    status = [*git, "status", "--porcelain", *source]
    changed = subprocess.run(status, capture_output=True, text=True).stdout.strip()
    return (commit or "unknown") + ("+changes" if changed else "")


def _unique(runs: list[dict], name: str) -> str:
    return " and ".join(dict.fromkeys(line[name] for line in runs))


def _key(setting: dict) -> str:
    return json.dumps(setting, sort_keys=True)
