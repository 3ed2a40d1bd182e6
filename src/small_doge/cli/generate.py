"""`small-doge generate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..inference.sampling_options import SamplingOptions
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from . import options


if TYPE_CHECKING:
    from ..inference import Engine, Request


@options.with_sampling_options(*options.SAMPLING, "stop", "json_schema", max_new_tokens=60, seed=0)
def generate_text(
    *,
    model: options.ModelArgument = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text to continue.")] = "Ada lives in",
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message in the model's chat template.")
    ] = False,
    sampling: SamplingOptions,
    threads: options.Threads = None,
) -> None:
    """Continue a text, or with --chat answer a message.

    The exit status is 1 if JSON was requested and is not complete.
    """
    from ..inference import open_engine

    quiet_libraries()
    engine = open_engine(resolve_model(model), num_slots=1, threads=threads)
    prompt_ids = engine.render([{"role": "user", "content": prompt}]) if chat else engine.encode(prompt)
    request = engine.submit(prompt_ids, sampling)
    if not chat and sampling.json_schema is None:
        typer.echo(prompt, nl=False)
    for piece in engine.follow_text(request):
        typer.echo(piece, nl=False)
    typer.echo()
    _explain_finish(engine, request)


def _explain_finish(engine: "Engine", request: "Request") -> None:
    """Say on standard error why the text ended unless the model ended it, and whether it can be relied on.

    Raises:
        typer.Exit: with status 1, if JSON was requested and is not complete.
    """
    reason = engine.explain_finish(request) or _explain_cut(request)
    is_cut_json = reason is not None and request.options.json_schema is not None
    if reason is not None:
        _note(f"{reason}{', so the JSON is not complete' if is_cut_json else ''}")
    if engine.trained_length is not None and request.num_tokens > engine.trained_length:
        _note(f"{request.num_tokens} tokens; the model was trained on texts of up to {engine.trained_length}")
    if is_cut_json:
        raise typer.Exit(1)


def _explain_cut(request: "Request") -> str | None:
    """Say which stop text cut JSON that was requested; None if none did."""
    end = request.detokenizer
    if request.options.json_schema is None or end is None or end.stopped is None:
        return None
    # A stop text that names special tokens alone cuts nothing that would be shown.
    is_cut = any(is_shown for _, is_shown in end.held)
    return f"cut off at the stop text {end.stopped!r}" if is_cut else None


def _note(text: str) -> None:
    """Write a note to standard error."""
    typer.secho(f"[{text}]", err=True, dim=True)
