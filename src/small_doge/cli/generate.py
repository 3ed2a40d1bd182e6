"""`small-doge generate`."""

from pathlib import Path
from typing import Annotated

import typer

from ..inference import Answer, Engine, SamplingOptions, open_engine
from ..utils.errors import UserError
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from . import options


def generate_text(
    model: options.ModelArgument = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text to go on from.")] = "Ada lives in",
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the chat template, as after SFT.")] = False,
    max_new_tokens: options.MaxNewTokens = 60,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the answer; can be given again.")] = None,
    json_schema: Annotated[
        str | None, typer.Option(help="JSON schema that the answer must follow: a file, or the schema itself.")
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Let a model go on from a text, or with --chat answer it."""
    quiet_libraries()
    sampling = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
        "json_schema": _read_schema(json_schema) if json_schema else None,
    }
    SamplingOptions.from_names(sampling)  # refuses wrong values before the model is loaded
    engine = open_engine(resolve_model(model), lanes=1, threads=threads)
    ids = engine.render([{"role": "user", "content": prompt}]) if chat else engine.encode(prompt)
    answer = engine.submit(ids, **sampling)
    if not chat and json_schema is None:
        typer.echo(prompt, nl=False)
    for piece in engine.follow_text(answer):
        typer.echo(piece, nl=False)
    typer.echo()
    _tell_end(engine, answer, json_schema is not None)


def _tell_end(engine: Engine, answer: Answer, is_json: bool) -> None:
    """Say on standard error why the answer ended, unless the model ended it, and whether that can be relied on."""
    reason = engine.explain_end(answer)
    if reason is not None:
        typer.secho(f"[{reason}{', so the JSON is not complete' if is_json else ''}]", err=True, dim=True)
    if engine.trained_length is not None and answer.length > engine.trained_length:
        typer.secho(
            f"[{answer.length} tokens; the model was trained on texts of up to {engine.trained_length}]",
            err=True,
            dim=True,
        )


def _read_schema(given: str) -> str:
    if given.lstrip().startswith(("{", "true")):
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json-schema {given}: neither a schema nor a file that can be read ({error})") from error
