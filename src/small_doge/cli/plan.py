"""`small-doge plan` and `small-doge tune`: what a run will take, and which settings it should have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..trainer.stages import list_names
from ..utils.errors import UserError
from ..utils.extras import require_extra
from ..utils.files import write_json
from ..utils.logging import quiet_libraries
from ..utils.suggest import unknown_name_message
from .tables import show_table
from .train import ANY_SETTING


if TYPE_CHECKING:
    from ..trainer.planning import Plan


tuning = typer.Typer(help="Find a good batch size or learning rate by trying several.", no_args_is_help=True)
console = Console()
ConfigOption = Annotated[str, typer.Option(help="Recipe, a YAML file.")]
StageOption = Annotated[
    str | None, typer.Option(help=f"Stage: {list_names()}; guessed from the recipe's path if not set.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the figures and the picture.")]


def plan_run(context: typer.Context, config: ConfigOption, stage: StageOption = None) -> None:
    """Estimate what a run will take before it starts: parameters, tokens, steps, memory, disk and hours.

    It measures a few steps with random tokens on this machine. You can add any setting as --name value.
    """
    require_extra("small-doge plan", "train")
    from ..trainer.planning import make_plan
    from ..trainer.recipe import parse_command_line
    from ..utils.hardware import describe_device

    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    plan = make_plan(config, {"output_dir": "runs/plan", **overrides}, stage)
    machine = describe_device()
    rows = describe_plan(plan).items()
    show_table(console, ("What", "How much"), rows, f"{plan.stage} by {config}", prose=("How much",))
    where = ", ".join(machine["accelerators"]) or f"{machine['processor']}, {machine['cores']} cores"
    console.print(f"Measured on {where}; {machine['memory_free_gib']} GiB of memory are free.", highlight=False)
    if plan.memory > machine["memory_free_gib"] * 2**30 and not machine["accelerators"]:
        console.print("[red]It does not fit into memory[/]: see small-doge tune batch-size", highlight=False)


def describe_plan(plan: "Plan") -> dict[str, str]:
    """Return the lines of a plan, for people."""
    unknown = "known once the data are prepared; set total_sample_size or max_steps to plan with"
    return {
        "parameters": f"{plan.parameters:,}",
        "rows a step": f"{plan.rows_per_step:,}",
        "tokens a step": f"{plan.tokens_per_step:,}",
        "steps": unknown if plan.steps is None else f"{plan.steps:,}",
        "tokens": unknown if plan.tokens is None else f"{plan.tokens:,}",
        "memory of a process": _gib(plan.memory),
        "a checkpoint": _gib(plan.checkpoint),
        "disk": _gib(plan.disk),
        "seconds a step": f"{plan.seconds_per_step:.2f}",
        "tokens a second": f"{plan.tokens_per_step / plan.seconds_per_step:,.0f}",
        "hours": unknown if plan.hours is None else f"{plan.hours:,.2f}",
    }


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


@tuning.command("batch-size", context_settings=ANY_SETTING)
def batch_size(
    context: typer.Context,
    config: ConfigOption,
    stage: StageOption = None,
    output: OutputOption = Path("runs/tune/batch-size"),
    max_rows: Annotated[int, typer.Option(min=1, help="Largest number of rows to try.")] = 1024,
) -> None:
    """Find the largest per_device_train_batch_size that fits into memory, and the fastest one."""
    require_extra("small-doge tune", "train")
    from ..trainer.planning import Probe
    from ..trainer.recipe import parse_command_line
    from ..trainer.tuning import plot_batches, tune_batch_size

    quiet_libraries()
    _, overrides = parse_command_line(context.args)

    def say(probe: Probe, speed: float) -> None:
        console.print(f"{probe.rows} rows: {speed:,.0f} tok/s, {_gib(probe.memory)}", highlight=False)

    found = tune_batch_size(config, {"output_dir": str(output), **overrides}, stage, max_rows, say)
    output.mkdir(parents=True, exist_ok=True)
    plot_batches(found, output / "batch_size.png")
    facts = {
        "largest": found.largest,
        "measured": found.measured,
        "fastest": found.fastest.rows,
        "tokens_per_second": {p.rows: round(found.tokens_per_second(p), 1) for p in found.probes},
        "memory_bytes": {p.rows: p.memory for p in found.probes},
    }
    write_json(output / "batch_size.json", facts)
    how = "" if found.measured else " (told from the memory of smaller ones)"
    console.print(f"Largest that fits: per_device_train_batch_size={found.largest}{how}", highlight=False)
    console.print(f"As fast as any: {found.fastest.rows} rows. Picture: {output / 'batch_size.png'}", highlight=False)


@tuning.command("lr", context_settings=ANY_SETTING)
def learning_rate(
    context: typer.Context,
    config: ConfigOption,
    stage: StageOption = None,
    lowest: Annotated[
        float | None, typer.Option("--from", help="Lowest learning rate; 1e-4 if not set, or 1e-3 for muon_lr.")
    ] = None,
    highest: Annotated[
        float | None, typer.Option("--to", help="Highest learning rate; 1e-2 if not set, or 1e-1 for muon_lr.")
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Number of learning rates to try, evenly spaced on a logarithmic scale.")
    ] = 5,
    steps: Annotated[int, typer.Option(min=2, help="Number of steps of each trial.")] = 100,
    setting: Annotated[
        str, typer.Option(help="Setting to tune: learning_rate, or with optim=muon also muon_lr or embedding_lr.")
    ] = "learning_rate",
    output: OutputOption = Path("runs/tune/lr"),
) -> None:
    """Find a good learning rate by short runs on the recipe's own data. Finished runs are not repeated."""
    require_extra("small-doge tune", "train")
    from ..trainer.recipe import parse_command_line
    from ..trainer.tuning import RATES, Trial, choose_rate, plot_rates, spread_rates, tune_learning_rate

    quiet_libraries()
    _, overrides = parse_command_line(context.args)

    def say(trial: Trial) -> None:
        console.print(f"{setting} {trial.rate:.1e}: score {trial.score:.4f}", highlight=False)

    if setting not in RATES:
        raise UserError(unknown_name_message("--setting", setting, RATES))
    low, high = RATES[setting]
    rates = spread_rates(low if lowest is None else lowest, high if highest is None else highest, trials)
    done = tune_learning_rate(config, overrides, rates, steps, output, stage, say, setting)
    picture = output / f"{setting}.png"
    plot_rates(done, picture)
    best, advice = choose_rate(done)
    write_json(output / f"{setting}.json", {"best": best.rate, "scores": {f"{t.rate:.1e}": t.score for t in done}})
    console.print(
        f"Best: {setting}={best.rate:.1e}{f'; {advice}' if advice else ''}. Picture: {picture}",
        highlight=False,
    )
