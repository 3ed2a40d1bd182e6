"""Training steps with and without freed memory kept by the process: seconds, page faults and peak memory of each.

Each runs in a process of its own, in turn, since the setting of a C library can't be taken back.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from bench_training_step import prepare
from common import report

from small_doge.utils.allocator import SWITCH, keep_freed_memory


def run_steps(size: str, kind: str, steps: int) -> dict[str, float]:
    """Run steps in this process, after two that are not counted."""
    keep_freed_memory()
    step = prepare("ours", size, kind, False)
    step(), step()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF), []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": min(seconds),
        "system seconds": (after.ru_stime - before.ru_stime) / steps,
        "page faults": (after.ru_minflt - before.ru_minflt) // steps,
        "peak MiB": after.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="Doge-20M")
    parser.add_argument("--batch", default="1x2048", help="ROWSxTOKENS, or packed")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(run_steps(args.size, args.batch, args.steps)))
        return
    results: dict[str, list[dict]] = {"given back": [], "kept": []}
    for _ in range(args.rounds):
        for name, lines in results.items():
            env = {**os.environ, SWITCH: "1" if name == "kept" else "0"}
            command = [sys.executable, __file__, *sys.argv[1:], "--run"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            lines.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        {"memory": name, **{fact: statistics.median(line[fact] for line in lines) for fact in lines[0]}}
        for name, lines in results.items()
    ]
    rows[1]["speed ratio"] = rows[0]["seconds"] / rows[1]["seconds"]
    report("allocator", rows)


if __name__ == "__main__":
    main()
