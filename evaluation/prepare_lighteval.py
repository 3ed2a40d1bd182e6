"""Makes lighteval start without a network: puts what it would fetch into its environment.

Run by `make lighteval`, or by hand with the Python that small-doge is installed in:
python evaluation/prepare_lighteval.py .venv-lighteval
"""

import sys
from pathlib import Path

from small_doge.evaluation.ifeval import PUNKT, write_punkt


def prepare(environment: Path) -> None:
    """Put files into an environment that lighteval was installed in."""
    packages = [
        *environment.glob("lib/python*/site-packages/lighteval/tasks/tasks"),
        *environment.glob("Lib/site-packages/lighteval/tasks/tasks"),
    ]
    if not packages:
        raise SystemExit(f"{environment} has no lighteval; install it there first: make lighteval")
    for folder in packages:
        # lighteval fetches this file while it lists its tasks, and reads it for its own tiny benchmarks alone.
        (folder / "tinyBenchmarks.pkl").touch()
    # NLTK's splitter of sentences, for IFEval: lighteval looks for it in both of its forms, and reads the second.
    (environment / "nltk_data" / "tokenizers" / "punkt").mkdir(parents=True, exist_ok=True)
    folder = environment / "nltk_data" / PUNKT
    if not folder.exists():
        write_punkt(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    prepare(Path(sys.argv[1]))
