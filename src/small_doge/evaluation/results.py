"""A suite as a whole: a model on its tasks, its speed, other models beside it, and `results.json`."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..inference import Engine, OnnxEngine
from ..inference.benchmark import measure_engine
from ..utils.files import write_json, write_text
from ..utils.hardware import describe_device
from .controls import check_control, check_with_hf, run_controls
from .lm import EngineLM
from .provenance import find_commit, hash_model
from .running import Plan, Say, hash_template, make_content, read_kept, run_plan
from .score_tables import write_html, write_markdown


PACKAGES = ("small-doge", "lm-eval", "transformers", "torch", "onnxruntime", "datasets")


def run_suite(
    engine: Engine,
    model: str,
    plan: Plan,
    output_dir: Path,
    batch_size: int | None = None,
    controls: Sequence[str] = (),
    check: bool = False,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Score a model on a suite, and write what each task gave, with every item, and the tables to a folder.

    A task that an earlier run finished in the same folder, with the same model, data and settings, is taken from there. So
    are other models and a check, where none are asked for and all items are the same.

    Args:
        engine: of the model.
        model: folder or hub name.
        plan: what to ask.
        output_dir: folder for the results.
        batch_size: texts that are computed together; found by a measurement if not set.
        controls: folders or hub names of other models, scored on the same items through `transformers`.
        check: ask the model itself through `transformers` too, and compare item by item.
        say: told what is being done.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: a model or control that does not suit the suite, or can't be opened. If only the weights of a control
            can't, the model's own results are written.
    """
    lm = EngineLM(engine, batch_size=batch_size)
    facts: dict[str, Any] = {
        "model_hash": hash_model(model),
        "chat_template_hash": hash_template(model, getattr(engine.tokenizer, "chat_template", None), plan),
        "max_length": lm.max_length,
        "engine": "ONNX Runtime" if isinstance(engine, OnnxEngine) else "PyTorch",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": find_commit(),
    }
    for other in (*controls, *([model] if check else ())):  # before hours are spent on the model itself
        check_control(other, plan)
    parts = run_plan(lm, plan, facts, output_dir, say)
    content = make_content(plan, parts)
    earlier = _find_same_scores(output_dir, facts, content["rows"])
    result = {
        "model": model,
        "suite": plan.suite,
        "limit": plan.limit,
        "chat": plan.chat,
        **facts,
        **content,
        "speed": measure_speed(engine, facts["model_hash"], facts["engine"], output_dir / "speed.json", say),
        "controls": earlier.get("controls", []),
        "check": earlier.get("check", []),
    }
    write_results(result, output_dir)  # other models may still fail, and take as long
    if controls:
        result["controls"] = run_controls(controls, plan, parts, facts, output_dir, batch_size, say)
        write_results(result, output_dir)
    if check:
        result["check"] = check_with_hf(lm, model, plan, parts, facts, output_dir, say)
        write_results(result, output_dir)
    return result


def write_results(result: dict[str, Any], folder: Path) -> None:
    """Write `results.json`, and its tables `results.md` and `results.html`."""
    write_json(folder / "results.json", result)
    write_text(folder / "results.md", write_markdown(result))
    write_text(folder / "results.html", write_html(result))


def _find_same_scores(output_dir: Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Read an earlier result of the same model and items, whose controls and check still hold; empty if there is none."""

    def identify(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [tuple(row[name] for name in ("row", "shots", "task_hashes", "prompt_hashes")) for row in rows]

    known = read_kept(output_dir / "results.json", facts)
    return known if known and identify(known["rows"]) == identify(rows) else {}


def measure_speed(engine: Engine, model_hash: str, engine_name: str, path: Path, say: Say) -> dict[str, Any]:
    """Measure how many tokens a second the model writes, one sequence at a time, or read what was measured before.

    Args:
        engine: of the model, which must be idle.
        model_hash: of the model.
        engine_name: what the engine runs on.
        path: where the measurement is kept.
        say: told what is being done.
    """
    machine = describe_device()
    key = {
        "model_hash": model_hash,
        "engine": engine_name,
        "machine": f"{machine['processor']}, {machine['cores']} cores",
        "threads": getattr(engine, "threads", None),
    }
    if known := read_kept(path, key):
        return known
    say("tokens per second")
    (row,) = measure_engine(engine, [0], [1])
    found = {**key, "tokens_per_second": row["decode_tok_s"]}
    write_json(path, found)
    return found
