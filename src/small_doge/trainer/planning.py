"""What a run will take, from its settings and a short measured probe."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ..models import DogeConfig, DogeForCausalLM
from ..models.presets import PRESETS
from ..processor.prepared import open_prepared
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .arguments import MUON, DataArguments, ModelArguments, StageArguments
from .building import add_adapter, build_muon
from .checkpoints import BYTES_OF_WEIGHT, estimate_checkpoint, estimate_disk
from .recipe import StageRun, load_run
from .stages import find_stage, guess_stage


logger = get_logger(__name__)

# A probe of all rows at once may take this long; beyond, one row is measured and multiplied.
PATIENCE = 10.0
POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Probe:
    """A measured micro-batch.

    Args:
        rows: of it.
        seconds: forward and backward, of these rows.
        update_seconds: one step of the optimizer.
        memory: bytes beyond what the process had before it held the model: weights, gradients, moments, activations.
    """

    rows: int
    seconds: float
    update_seconds: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """What a run will take; None where the data decide and are not prepared yet.

    Args:
        stage: name of the stage.
        parameters: of the model.
        rows_per_step: over all processes; a pair counts as two.
        tokens_per_step: at most, rows being full.
        steps: of the optimizer.
        memory: bytes of a process, activations included.
        checkpoint: bytes of one.
        disk: bytes of all checkpoints kept, one being written, and the finished model.
        seconds_per_step: on this machine.
    """

    stage: str
    parameters: int
    rows_per_step: int
    tokens_per_step: int
    steps: int | None
    memory: int
    checkpoint: int
    disk: int
    seconds_per_step: float

    @property
    def tokens(self) -> int | None:
        """Of the whole run, rows being full."""
        return None if self.steps is None else self.steps * self.tokens_per_step

    @property
    def hours(self) -> float | None:
        """Of the whole run, without evaluations."""
        return None if self.steps is None else self.steps * self.seconds_per_step / 3600


def load_stage(config: str | Path, overrides: dict[str, Any], stage: str | None = None) -> StageRun:
    """Read a recipe of the named stage, or of the one that the recipe's place tells.

    Raises:
        ValueError: unknown settings or an unknown stage.
    """
    return load_run(guess_stage(config) if stage is None else find_stage(stage), config, overrides)


def make_plan(config: str | Path, overrides: dict[str, Any], stage: str | None = None) -> Plan:
    """Plan a run without preparing its data: settings, and a probe with random tokens.

    Args:
        config: the recipe.
        overrides: settings that override it.
        stage: name of the stage; guessed from the recipe's place if None.
    """
    run = load_stage(config, overrides, stage)
    args = run.args
    doge_config = find_config(run.model)
    length = args.compute_row_length(run.data.max_length)
    at_once = args.per_device_train_batch_size * args.sequences_per_row
    probe = run_probe(doge_config, run, at_once, length, args.completion_length)
    with torch.device("meta"):
        model = DogeForCausalLM(doge_config)
        parameters = model.num_parameters()
        model = add_adapter(model, run.model)
    micro_steps = args.gradient_accumulation_steps
    rows = at_once * micro_steps * args.world_size
    return Plan(
        stage=run.stage.name,
        parameters=parameters,
        rows_per_step=rows,
        tokens_per_step=rows * length,
        steps=count_steps(run.data, args),
        memory=probe.memory,
        checkpoint=estimate_checkpoint(model, args),
        disk=estimate_disk(model, args),
        seconds_per_step=probe.seconds * micro_steps + probe.update_seconds,
    )


def find_config(model: ModelArguments) -> DogeConfig:
    """Find the configuration of the model, without its weights; of a hub's name that is not here, that of its size."""
    if model.model_preset is not None:
        return DogeConfig.from_preset(model.model_preset, **model.model_overrides)
    name = str(model.model_name_or_path or model.continue_from)
    try:
        return DogeConfig.from_pretrained(name)
    except (OSError, ValueError):
        size = max((preset for preset in PRESETS if preset in name), key=len, default=None)
        if size is None:
            raise UserError(f"model_name_or_path={name}: no model there, and its name tells no size") from None
        logger.warning("%s is not here yet: planning with the size %s", name, size)
        return DogeConfig.from_preset(size)


def count_steps(data: DataArguments, args: StageArguments) -> int | None:
    """Count the steps of the optimizer; None where the number of rows is not known before the data are prepared."""
    if args.max_steps > 0:
        return args.max_steps
    rows: int | None = data.total_sample_size if data.total_sample_size > 0 else None
    if data.dataset_name is not None and Path(data.dataset_name).is_dir():
        rows = len(open_prepared(data.dataset_name)["train"])
    if rows is None:
        return None
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    # Each prompt is a row of the data, and as many rows of a step as it has completions, each as often as it is used.
    rows *= getattr(args, "num_generations", 1) * getattr(args, "num_iterations", 1)
    return max(1, int(rows * args.num_train_epochs) // per_step)


def run_probe(
    config: DogeConfig, run: StageRun, rows: int, length: int, completion: int = 0, before: int | None = None
) -> Probe:
    """Measure a micro-batch of random tokens: one row first, and all of them where that does not take long.

    Args:
        config: of the model, which gets random weights.
        run: device, precision, optimizer and adapter.
        rows: of a micro-batch.
        length: tokens of a row.
        completion: tokens of it that are generated first.
        before: bytes of the process before any probe, whose memory it may still hold; those of now if None.
    """
    gc.collect()
    args = run.args
    device = args.device
    with watch_memory(device, before) as peak:
        model = add_adapter(DogeForCausalLM(config).to(device), run.model).train()
        by_muon = args.optim == MUON
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = build_muon(model, args) if by_muon else torch.optim.AdamW(trained, lr=1e-9)
        _run_rows(model, args, 1, min(length, 32), 0)  # warm-up
        started = time.monotonic()
        optimizer.step()
        _wait_for(device)
        update = time.monotonic() - started
        first = _run_rows(model, args, 1, length, completion)
        # A process that reuses memory it had before grows by less than it holds.
        weights = BYTES_OF_WEIGHT * model.num_parameters()
        least = estimate_checkpoint(model, args) + weights  # of the gradients
        averaged = 0 if args.weight_average == "none" else sum(parameter.numel() for parameter in trained)
        average = BYTES_OF_WEIGHT * averaged  # made late in a run, and not by this probe
        if rows == 1 or first * rows > PATIENCE:
            whole = max(least, peak() + average)
            return Probe(rows, first * rows, update, whole + (whole - least) * (rows - 1))
        seconds = min(_run_rows(model, args, rows, length, completion) for _ in range(2))
        return Probe(rows, seconds, update, max(least, peak() + average))


def _run_rows(model: Any, args: StageArguments, rows: int, length: int, completion: int) -> float:
    """Return the seconds of one micro-batch, forward and backward, and of writing its completions before."""
    tokens = torch.randint(0, model.config.vocab_size, (rows, length), device=model.device)
    autocast = torch.autocast(model.device.type, torch.bfloat16) if args.bf16 else nullcontext()
    started = time.monotonic()
    if completion:
        model.eval().generate(
            tokens[:, : max(1, length - completion)],
            max_new_tokens=completion,
            min_new_tokens=completion,
            do_sample=False,
            pad_token_id=0,
        )
        model.train()
    with autocast:
        loss = model(input_ids=tokens, labels=tokens, skip_logits=True, use_cache=False).loss
    loss.backward()
    _wait_for(model.device)
    return time.monotonic() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def watch_memory(device: torch.device, before: int | None = None) -> Iterator[Any]:
    """Give a function that tells the most bytes held since the block began: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - allocated
        return
    process = psutil.Process()
    most = process.memory_info().rss
    start = most if before is None else before
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(POLL_SECONDS):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(most, process.memory_info().rss) - start
    finally:
        done.set()
        watcher.join()
