"""What a GPU does, in one command of less than ten minutes: the GPU tests, attention, training and generation.

    make bench-gpu

Each part is a command of its own with a limit of time, and the result file is written after each, so that one that fails or
is stopped costs only itself. `--smoke` runs the same at a tiny size on the processor, to see that it works.
"""

import argparse
import datetime
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.common import format_table
from benchmarks.studies.common import RESULTS, describe_commit, describe_machine, machine_slug

from small_doge.utils.files import write_text


ROOT = Path(__file__).parents[1]


@dataclass
class Part:
    """A command, and the seconds it may take."""

    title: str
    command: list[str]
    seconds: int


def script(name: str, options: str) -> list[str]:
    return [f"benchmarks/{name}.py", *options.split()]


PYTEST = ["-m", "pytest", "-q", "-m", "gpu"]
TRAINING = "--device cuda --precisions bf16 --rounds 4 --sizes Doge-20M Doge-60M Doge-160M --batches 4x2048 packed"
PARTS = {
    "attention": Part("Attention by length", script("bench_attention", "--device cuda"), 150),
    "training": Part("Training step", script("bench_training_step", TRAINING), 150),
    "generation": Part("Generation", script("bench_generation", "--device cuda --depths 1024 4096 16384"), 60),
    "tests": Part("Tests", [*PYTEST, "tests/integration/test_cuda.py", "tests/unit/ops", "tests/unit/optim"], 180),
}
SMOKE = {
    # flex has no gradients on a processor
    "attention": script("bench_attention", "--lengths 32 64 --window 32 --rounds 1 --backends auto streaming"),
    "training": script("bench_training_step", "--sizes Doge-20M --precisions float32 --batches 1x64 --rounds 1"),
    "generation": script("bench_generation", "--depths 8 16 --layers 1 --steps 2"),
    "tests": [*PYTEST, "tests/unit/optim"],
}


def run_part(command: list[str], seconds: int) -> tuple[str, bool]:
    """Run a part; returns its table, or the end of what it printed, as Markdown, and whether it ended well."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        text, _ = process.communicate(timeout=seconds)
        end = "" if process.returncode == 0 else f"It ended with code {process.returncode}."
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        end = f"It was stopped after its limit of {seconds} seconds; what it had printed follows."
    print(text, flush=True)
    lines = text.splitlines()
    reports = [json.loads(line) for line in lines if line.startswith('{"benchmark"')]
    tables = [format_table(report["rows"]) for report in reports] or ["```text\n" + "\n".join(lines[-20:]) + "\n```"]
    facts = f"`python {shlex.join(command)}`, {time.perf_counter() - start:.0f} seconds. {end}".rstrip()
    return "\n\n".join([facts, *tables]), not end


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="a tiny size, on the processor")
    parser.add_argument("--output", type=Path, help="result file, Markdown; by default in benchmarks/results")
    args = parser.parse_args(argv)
    if not args.smoke and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device here; --smoke runs the same at a tiny size on the processor")
    device, today = "cpu" if args.smoke else "cuda", datetime.date.today()
    output = args.output or ROOT / RESULTS / f"gpu_{machine_slug(device)}_{today:%Y%m}.md"
    texts = [
        "# On a GPU",
        f"`python -m benchmarks.bench_gpu` at commit {describe_commit()}, {today:%B %d, %Y}. Machine: "
        f"{describe_machine(device)}.",
    ]
    failed = []
    for key in args.parts:
        part = PARTS[key]
        text, ended_well = run_part(SMOKE[key] if args.smoke else part.command, part.seconds)
        failed += [] if ended_well else [key]
        texts += [f"## {part.title}", text]
        write_text(output, "\n\n".join(texts) + "\n")
    print(f"written: {output}")
    if failed:
        sys.exit(f"these parts did not end well: {', '.join(failed)}; {output} shows why")


if __name__ == "__main__":
    main()
