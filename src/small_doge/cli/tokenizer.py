"""`small-doge tokenizer`: train and inspect."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..processor.choices import DEFAULT_SAMPLE_BYTES, DEFAULT_VOCAB_SIZE
from ..processor.data_config import DataConfig
from ..utils.extras import require_extra
from ..utils.files import OVERWRITE_HELP, check_output, whole_folder
from ..utils.logging import quiet_libraries
from ..utils.model_folder import load_tokenizer
from ..utils.paths import resolve_model
from .field_options import with_field_options


app = typer.Typer(help="Train a tokenizer, or look at one.", no_args_is_help=True)

EMBEDDED_TEXTS = 20_000
COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")


@app.command("train")
@with_field_options(DataConfig, ("dataset_text_field", "max_bad_rows", "max_bad_share"), "settings")
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the tokenizer.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Data set to train on; repeat for several. The embedded corpus if not set."),
    ] = None,
    *,
    settings: dict[str, Any],
    vocab_size: Annotated[int, typer.Option(help="Number of tokens.")] = DEFAULT_VOCAB_SIZE,
    base: Annotated[str | None, typer.Option(help="Tokenizer whose algorithm and chat template to keep.")] = None,
    sample_bytes: Annotated[
        int, typer.Option(help="Number of bytes of text to train on, which limits the memory used.")
    ] = DEFAULT_SAMPLE_BYTES,
    max_digits: Annotated[
        int | None, typer.Option(help="Maximum number of digits in a token; 3 if not set. Not with --base.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Maximum length of the models that will use it, stored in the tokenizer; that of --base, or 2048, if not set."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 233,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)] = False,
) -> None:
    """Train a tokenizer on data sets, or on the embedded corpus."""
    if data:
        require_extra("small-doge tokenizer train --data", "data")
    from ..processor import tokenizer as library
    from ..processor.corpus import iterate_mixture

    quiet_libraries()
    check_output(output, library.MADE_BY, overwrite, [*(data or []), *([base] if base else [])])
    texts = library.read_texts(data, DataConfig(**settings)) if data else iterate_mixture(EMBEDDED_TEXTS)
    trained = library.train_tokenizer(
        texts,
        vocab_size,
        base=load_tokenizer(base, "--base") if base else None,
        sample_bytes=sample_bytes,
        max_digits=max_digits,
        model_max_length=max_length,
        seed=seed,
    )
    with whole_folder(output, library.MADE_BY, overwrite) as folder:
        trained.save_pretrained(folder)
    typer.echo(f"{output}: {len(trained)} entries")


@app.command("inspect")
def inspect(
    model: Annotated[
        str | None, typer.Argument(help="Tokenizer or model; the demo's newest stage if not set.")
    ] = None,
    text: Annotated[
        str, typer.Option(help="Text to split into tokens.")
    ] = "Ada has 12 red balls. def add(a, b): return a + b",
) -> None:
    """Show the special tokens, the chat template, and how a text is split into tokens."""
    from ..processor import tokenizer as library
    from ..processor.chat_encoding import encode_text

    loaded = load_tokenizer(resolve_model(model), "MODEL")
    console = Console()
    for name, value in library.describe_tokenizer(loaded, text).items():
        console.print(f"{name}: {value}", markup=False)
    tokens = encode_text(loaded, text)
    cut = Text(f"this text in {len(tokens)} tokens: ")
    for colour, token in zip(itertools.cycle(COLOURS), tokens, strict=False):
        cut.append(loaded.decode([token]), style=colour)
    console.print(cut)
    messages = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am Doge."}]
    if loaded.chat_template:
        console.print("a conversation in the chat template:")
        console.print(loaded.apply_chat_template(messages, tokenize=False), markup=False)
