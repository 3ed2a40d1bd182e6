"""What is known of a model: from the files in its folder and beside it, and from a short measurement."""

import importlib.metadata
import json
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from ..inference import Engine, is_exported
from ..inference.benchmark import measure_engine
from ..inference.export import FACTS
from ..trainer.callbacks import read_log
from ..trainer.checkpoints import LOG_NAME, RECIPE
from ..utils.errors import UserError
from ..utils.hardware import describe_device
from ..utils.model_folder import check_model_folder
from ..utils.paths import FINISHED
from .provenance import find_commit, hash_model


REPORT = "report.json"
# What a stage that trains on texts alone calls itself.
BASE_STAGE = "Pre-training"
CHAT_PROMPTS = ("Who are you?", "What is 23 + 14?", "Name three animals that live in water.", "Why is the sky blue?")
BASE_PROMPTS = ("Once upon a time", "The capital of France is", "Water boils when", "def add(a, b):")
SAMPLING = {"temperature": 0.8, "top_p": 0.9, "seed": 0}
MAX_NEW_TOKENS = 64
SPEED_DEPTH, SPEED_TOKENS = 512, 32
# What names of exports add to the model's, by the command itself and in the documents; an export does not say of which model
# it is, and a folder NAME-MORE-int8 is that of another one, NAME-MORE.
EXPORT_SUFFIX = re.compile(r"-(onnx|float32|int8|int4|kv-int8)(-kv-int8)?")
PACKAGES = ("small-doge", "torch", "transformers", "onnxruntime")
ARCHITECTURE = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "query heads",
    "num_key_value_heads": "key-value heads",
    "keep_window_size": "keys that a head keeps",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "trained length",
}


def collect_report(
    folder: Path,
    engine: Engine,
    prompts: Sequence[str] | None = None,
    chat: bool | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Collect what is known of a model.

    Speed and samples of an earlier report on the same weights are kept, so that figures don't change from page to page.

    Args:
        folder: of a checkpoint or an export.
        engine: of the model.
        prompts: to show answers to; some of ours if not set.
        chat: whether to ask in the chat template; if not set, where there is one and the model was not only pre-trained.
        fresh: measure speed and make samples anew.
        say: told what is being done.

    Returns:
        The content of `report.json`: parts that are missing are None, and `missing` has the command that makes each.
    """
    config, finished = _read_json(folder / "config.json") or {}, _read_json(folder / FINISHED) or {}
    digest = hash_model(str(folder))
    stage = finished.pop("stage", None)
    finished.pop("finished_at", None)
    exported = is_exported(folder)
    if chat is None:
        chat = bool(getattr(engine.tokenizer, "chat_template", None)) and stage != BASE_STAGE
    asked = list(prompts or (CHAT_PROMPTS if chat else BASE_PROMPTS))
    earlier = _read_json(folder / REPORT) or {}
    known = {} if fresh or earlier.get("model_hash") != digest else earlier
    speed, samples = known.get("speed"), known.get("samples")
    if speed is None:
        say("measuring speed")
        speed = measure_speed(engine)
    if samples is None or [s["prompt"] for s in samples["answers"]] != asked or samples["chat"] != chat:
        say("writing samples")
        samples = write_samples(engine, asked, chat)
    report: dict[str, Any] = {
        "title": folder.resolve().name,
        "path": str(folder),
        "model_hash": digest,
        "commit": find_commit(),
        "versions": {name: _find_version(name) for name in PACKAGES},
        "exported": exported,
        "stage": "Export" if exported else stage,
        "facts": _read_json(folder / FACTS) or finished or None,
        "architecture": {name: config[key] for key, name in ARCHITECTURE.items() if config.get(key) is not None}
        | _describe_experts(config),
        "sizes": describe_sizes(folder),
        "training": read_log(folder / LOG_NAME) or None,
        "settings": _read_yaml(folder / RECIPE),
        "speed": speed,
        "samples": samples,
    }
    report |= find_scores(folder, digest)
    report["missing"] = name_missing(report)
    return report


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a file of JSON, None if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); make it again, or delete it") from error


def _read_yaml(path: Path) -> dict[str, Any] | None:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def _describe_experts(config: dict[str, Any]) -> dict[str, str]:
    if not config.get("is_moe"):
        return {}
    return {"experts of a layer": f"{config['num_experts']:,}, {config['num_experts_per_tok']} for a token"}


def describe_sizes(folder: Path) -> dict[str, Any]:
    """Return parameters, bytes of the files of weights, and the exports that lie beside the folder."""
    check_model_folder(folder)
    weights = {file.name: file.stat().st_size for file in sorted(folder.glob("*")) if _is_weights(file)}
    name = folder.resolve().name
    exports = {
        other.name: sum(file.stat().st_size for file in other.iterdir() if _is_weights(file))
        for other in sorted(folder.resolve().parent.iterdir())
        if other.name.startswith(name) and EXPORT_SUFFIX.fullmatch(other.name[len(name) :]) and is_exported(other)
    }
    return {"parameters": count_parameters(folder), "weights": weights, "exports": exports}


def _is_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or ".onnx" in file.suffixes


def count_parameters(folder: Path) -> int | None:
    """Count the parameters in a checkpoint's files; None for an export."""
    files = sorted(folder.glob("model*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, "pt") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total if files else None


def measure_speed(engine: Engine) -> dict[str, Any]:
    """Measure prefill and decoding of one sequence, at an empty cache and after a text of the trained length at most."""
    limit = engine.backend.max_length
    depth = min(
        SPEED_DEPTH, engine.trained_length or SPEED_DEPTH, (limit or SPEED_DEPTH + SPEED_TOKENS) - SPEED_TOKENS
    )
    machine = describe_device()
    threads = getattr(engine, "threads", machine["threads"])
    rows = measure_engine(engine, sorted({0, max(0, depth)}), [1], SPEED_TOKENS)
    return {"machine": machine, "threads": threads, "rows": rows}


def write_samples(engine: Engine, prompts: Sequence[str], chat: bool) -> dict[str, Any]:
    """Let a model answer prompts, or go on from them: the likeliest text, and a drawn one."""
    answers = []
    for prompt in prompts:
        tokens = engine.render([{"role": "user", "content": prompt}]) if chat else engine.encode(prompt)
        limit = engine.backend.max_length
        room = MAX_NEW_TOKENS if limit is None else min(MAX_NEW_TOKENS, limit - len(tokens))
        if room < 1:
            raise UserError(
                f"--prompt {prompt!r} has {len(tokens)} tokens; {engine.name} takes {limit} with the answer"
            )
        greedy = engine.generate(tokens, max_new_tokens=room, temperature=0.0)
        drawn = engine.generate(tokens, max_new_tokens=room, **SAMPLING)
        answers.append({"prompt": prompt, "greedy": greedy, "sampled": drawn})
    return {"chat": chat, "sampling": SAMPLING, "max_new_tokens": MAX_NEW_TOKENS, "answers": answers}


def _read_result(path: Path, is_own: bool) -> dict[str, Any]:
    """Read what an evaluation wrote; a file of another folder that is not of its kind is taken for an empty one.

    Raises:
        UserError: such a file lies in the model's own folder.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        problem = None if isinstance(result, dict) else f"it holds {type(result).__name__}, not an object"
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    if problem is None:
        return result
    if is_own:
        raise UserError(f"{path} is no result file ({problem}); make it again, or move it out of the model's folder")
    return {}


def find_scores(folder: Path, digest: str) -> dict[str, Any]:
    """Find results of evaluations, in a model's folder and beside it, that are of these weights.

    Returns:
        `scores`, `perplexity` and `held_out`, None where there are none, and in `outdated` the files in the model's folder
        that are of other weights.
    """
    found: dict[str, Any] = {"scores": [], "perplexity": None, "held_out": None, "outdated": []}
    places = [folder, *(p for p in sorted(folder.resolve().parent.glob("*")) if p.is_dir() and p != folder.resolve())]
    for place in places:
        for path in sorted([*place.glob("results.json"), *place.glob("eval-*/results.json")]):
            result = _read_result(path, place == folder)
            if result.get("model_hash") == digest and result.get("rows"):
                found["scores"].append({**result, "file": str(path)})
            elif place == folder:
                found["outdated"].append(str(path))
        for path in sorted([*place.glob("perplexity.json"), *place.glob("perplexity/perplexity.json")]):
            result = _read_result(path, place == folder)
            if result.get("model_hash") == digest:
                found["perplexity"] = found["perplexity"] or {**result, "file": str(path)}
            elif place == folder:
                found["outdated"].append(str(path))
    found["scores"] = found["scores"] or None
    path = folder / "scores.json"
    held_out = _read_result(path, is_own=True) if path.is_file() else {}
    if held_out.get("model_hash") == digest:
        found["held_out"] = held_out.get("scores")
    elif held_out:
        found["outdated"].append(str(path))
    return found


def name_missing(report: dict[str, Any]) -> dict[str, str]:
    """Name the commands that make what is not there."""
    model = shlex.quote(report["path"])
    commands = {
        "scores": f"small-doge eval {model} --data-root DIR",
        "perplexity": f"small-doge eval perplexity {model} FILES",
    }
    if not report["exported"]:
        commands["training"] = f"small-doge train STAGE --output_dir {model}"
    missing = {part: command for part, command in commands.items() if not report[part]}
    if not report["exported"] and not report["sizes"]["exports"]:
        missing["exports"] = f"small-doge export {model}"
    return missing
