"""`small-doge generate`."""

from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

from ..evaluation.held_out import render
from ..models import load_model
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model


def generate_text(
    model: Annotated[
        str | None, typer.Argument(help="Model folder or hub name; the demo's newest stage if none.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Text to go on from.")] = "Ada lives in",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = 60,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the chat template, as after SFT.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Let a model go on from a text, or with --chat answer it."""
    quiet_libraries()
    name = resolve_model(model)
    doge = load_model(AutoModelForCausalLM, name).eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    streamer = TextStreamer(tokenizer, skip_prompt=chat, skip_special_tokens=True)
    text = render(tokenizer, prompt) if chat else prompt
    doge.generate(
        tokenizer(text, return_tensors="pt", add_special_tokens=not chat),
        max_new_tokens=max_new_tokens,
        streamer=streamer,
        **sampling,
    )
