"""`small-doge chat`: a conversation in the terminal."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..inference import Engine, open_engine
from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.logging import quiet_libraries
from ..utils.paths import resolve_model
from ..utils.suggest import unknown_name_message
from . import options


HELP = """/system TEXT  set what the model is told first, and start over
/reset        start over
/save FILE    write the conversation as JSON
/help         this
/exit         end (or Ctrl-D); Ctrl-C stops an answer"""
COMMANDS = ("system", "reset", "save", "help", "exit")


def chat(
    model: options.ModelArgument = None,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_new_tokens: options.MaxNewTokens = 512,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = 0,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = None,
    threads: options.Threads = None,
) -> None:
    """Talk with a model. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends."""
    quiet_libraries()
    console = Console(highlight=False)
    name = resolve_model(model)
    with console.status(f"Loading {name}"):
        engine = open_engine(name, lanes=1, threads=threads)
        engine.render([{"role": "user", "content": "?"}])  # refuses a model without a template before any typing
    sampling = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    conversation = Conversation(engine, sampling, console, system)
    console.print(f"{name}. /help lists the commands, Ctrl-D ends.", style="dim", soft_wrap=True)
    _enable_line_editing()
    while True:
        try:
            text = input("> ").strip()
        except KeyboardInterrupt:
            console.print("\nCtrl-D or /exit ends.", style="dim")
            continue
        except EOFError:
            console.print()
            return
        if text in ("/exit", "/quit"):
            return
        if text.startswith("/"):
            conversation.obey(text)
        elif text:
            conversation.ask(text)


def _enable_line_editing() -> None:
    with contextlib.suppress(ImportError):  # not on every platform
        import readline  # noqa: F401  (arrow keys and earlier lines)


@dataclass
class Conversation:
    """What was said, and who answers."""

    engine: Engine
    sampling: dict[str, Any]
    console: Console
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def obey(self, line: str) -> None:
        """Follow a command; a mistake is told and changes nothing."""
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        if name == "reset":
            self.messages = []
            self.console.print("Started over.", style="dim")
        elif name == "system":
            self.system, self.messages = rest or None, []
            self.console.print(f"Started over. System: {rest or 'none'}", style="dim", markup=False)
        elif name == "save":
            self._save(rest)
        elif name == "help":
            self.console.print(HELP, markup=False)
        else:
            self.console.print(unknown_name_message("command", name, COMMANDS), style="red", markup=False)

    def _save(self, path: str) -> None:
        if not path:
            self.console.print("/save needs a file: /save chat.json", style="red")
            return
        try:
            write_json(Path(path).expanduser(), {"messages": self._all_messages()})
        except OSError as error:
            self.console.print(f"could not write {path}: {error}", style="red", markup=False)
        else:
            self.console.print(f"Saved {len(self.messages)} messages to {path}", style="dim", markup=False)

    def _all_messages(self) -> list[dict[str, str]]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self.messages

    def ask(self, text: str) -> None:
        """Stream the answer; what was said so far is kept when it is stopped, and nothing when it fails."""
        before = list(self.messages)
        self.messages.append({"role": "user", "content": text})
        try:
            self._answer()
        except UserError as error:
            self.messages = before
            self.console.print(str(error), style="red", markup=False)

    def _answer(self) -> None:
        start = time.perf_counter()
        answer = self.engine.submit(self._fit(), **self.sampling)
        pieces, first = self.engine.follow_text(answer), None
        parts: list[str] = []
        try:
            for piece in pieces:
                first = first or time.perf_counter()
                parts.append(piece)
                self.console.file.write(piece)
                self.console.file.flush()
        except KeyboardInterrupt:
            self.console.print(" [stopped]", style="yellow", markup=False, end="")
        finally:
            pieces.close()
        self.messages.append({"role": "assistant", "content": "".join(parts)})
        end, count = time.perf_counter(), len(answer.written)
        first = first or end
        speed = f", {(count - 1) / (end - first):,.0f} tok/s" if count > 1 and end > first else ""
        length = ", cut off at --max-new-tokens" if answer.finish_reason == "length" else ""
        self.console.print(
            f"\n{count} tokens{speed}, first after {1000 * (first - start):,.0f} ms, prompt {len(answer.prompt)} tokens "
            f"({answer.cached} cached){length}",
            style="dim",
        )

    def _fit(self) -> list[int]:
        """The tokens of the conversation; the oldest turns are left out where it has outgrown the model."""
        limit, dropped = self.engine.backend.max_length, 0
        while True:
            ids = self.engine.render(self._all_messages())
            if limit is None or len(ids) < limit or len(self.messages) == 1:
                break
            del self.messages[:2]
            dropped += 2
        if dropped:
            self.console.print(f"{dropped} messages left out: the model takes {limit} tokens", style="yellow")
        return ids
