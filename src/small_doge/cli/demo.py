"""`small-doge demo`: every stage on the embedded corpus, in minutes."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ..models import DogeForCausalLM, load_model
from ..processor.corpus import Question, held_out_questions, iterate_mixture
from ..processor.tokenizer import train_tokenizer
from ..trainer.doge.pt import run_pretraining
from ..trainer.recipe import parse_command_line
from ..utils.files import whole_folder, write_text
from ..utils.logging import quiet_libraries
from ..utils.paths import DEMO_DIR, FINISHED, find_tiny_recipes


PROMPTS = ("Ada lives in", "The best friend of Mia is", "Lesson: the cat", "7 + 5 =", "# Python\nx = 4\n")
TOKENIZER = {"vocab_size": 1280, "max_digits": 1, "model_max_length": 256}
TOKENIZER_TEXTS = 20_000
NUM_QUESTIONS = 50
STAGES = ("tokenizer", "pretrain")

console = Console()


def run_demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the demo.")] = DEMO_DIR,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
) -> None:
    """Train a tokenizer and a model of 2M parameters on the embedded corpus, and let it write.

    Run again, it goes on from what is done. Settings of the recipe can follow as --name value.
    """
    quiet_libraries()
    _, overrides = parse_command_line(context.args)
    if fresh:
        for stage in STAGES:
            shutil.rmtree(output / stage, ignore_errors=True)
    tokenizer = make_tokenizer(output / "tokenizer")
    folder = output / "pretrain"
    if (folder / FINISHED).exists():
        console.print(f"[green]done already[/]: pre-training, in {folder}")
    else:
        console.print("[bold]Pre-training[/] on the embedded corpus")
        settings = {"output_dir": str(folder), "tokenizer_name_or_path": str(output / "tokenizer"), **overrides}
        run_pretraining(find_tiny_recipes() / "pt.yaml", settings)
    model = load_model(AutoModelForCausalLM, folder).eval()
    samples = write_samples(model, tokenizer)
    right, asked = answer_questions(model, tokenizer, held_out_questions(NUM_QUESTIONS))
    summary = f"Questions that no training text asks: {right} of {asked} answered right."
    write_text(
        folder / "samples.md", "# Samples\n\n" + "".join(f"```text\n{s}\n```\n\n" for s in samples) + summary + "\n"
    )
    for sample in samples:
        console.print(sample, style="cyan", markup=False, highlight=False)
        console.print()
    console.print(summary)
    console.print(
        f"Model: {folder}   loss curve: {folder / 'loss.png'}   samples: {folder / 'samples.md'}", soft_wrap=True
    )
    console.print("Next: small-doge generate --prompt 'Where does Mia live?'", highlight=False)


def make_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The demo's tokenizer, trained if it is not there."""
    if folder.is_dir():
        console.print(f"[green]done already[/]: tokenizer, in {folder}")
        return AutoTokenizer.from_pretrained(folder)
    console.print("[bold]Tokenizer[/] from the embedded corpus")
    trained = train_tokenizer(iterate_mixture(TOKENIZER_TEXTS), **TOKENIZER)
    with whole_folder(folder) as new:
        trained.save_pretrained(new)
    return trained


def write_samples(model: DogeForCausalLM, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the model writes after each of `PROMPTS`, always the likeliest token."""
    return [_complete(model, tokenizer, prompt, 48) for prompt in PROMPTS]


def answer_questions(
    model: DogeForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[Question]
) -> tuple[int, int]:
    """Right answers and questions asked. An answer is right when its first line holds the words that it must."""
    right = 0
    for question in questions:
        answer = _complete(model, tokenizer, question.question, 24)[len(question.question) :]
        right += question.short_answer in answer.strip().split("\n")[0].replace(".", " ").split(" is ", 1)[-1]
    return right, len(questions)


def _complete(model: DogeForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int) -> str:
    output = model.generate(tokenizer(prompt, return_tensors="pt"), max_new_tokens=max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0], skip_special_tokens=True)
