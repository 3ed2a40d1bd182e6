"""`small-doge chat`: a conversation in the terminal."""

import contextlib
import io
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..inference import Engine, SamplingOptions, open_engine
from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.logging import get_logger, quiet_libraries
from ..utils.paths import resolve_model
from ..utils.suggest import unknown_name_message
from . import options


logger = get_logger(__name__)

HELP = """/system TEXT  set what the model is told first, and start over
/reset        start over
/save FILE    write the conversation as JSON
/help         this
/exit         end (or Ctrl-D); Ctrl-C stops an answer"""
# An answer gets one part in so many of the model's length, or --max-new-tokens if that is less.
ROOM = 4
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
    sampling = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    SamplingOptions.from_names(sampling)  # refuses wrong values before the model is loaded
    console = Console(highlight=False)
    name = resolve_model(model)
    with console.status(f"Loading {name}"):
        engine = open_engine(name, lanes=1, threads=threads)
        engine.render([{"role": "user", "content": "?"}])  # refuses a model without a template before any typing
    conversation = Conversation(engine, sampling, console, system)
    console.print(f"{name}. /help lists the commands, Ctrl-D ends.", style="dim", soft_wrap=True)
    _enable_line_editing()
    while True:
        try:
            text = _read_line()
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


def _read_line() -> str:
    """A line of the user, without a prompt where it comes through a pipe; bytes that are no text become U+FFFD."""
    line = input("> " if sys.stdin.isatty() else "").strip()
    text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if text != line:
        logger.warning("the input is not UTF-8; what could not be read became \ufffd")
    return text


def _is_conversation(path: Path) -> bool:
    """Whether a file is what /save writes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() == {"messages"}


def _enable_line_editing() -> None:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
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
        try:
            target = Path(path).expanduser()
            if not path or target.is_dir():
                self.console.print("/save needs a file: /save chat.json", style="red")
                return
            if target.exists() and not _is_conversation(target):
                raise UserError("it exists and is no saved conversation; name another file")
            write_json(target, {"messages": self._all_messages()})
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of a home folder that nobody has
            self.console.print(f"could not write {path}: {error}", style="red", markup=False)
        else:
            self.console.print(f"Saved {len(self.messages)} messages to {path}", style="dim", markup=False)

    def _all_messages(self, start: int = 0) -> list[dict[str, str]]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self.messages[start:]

    def ask(self, text: str) -> None:
        """Stream the answer; what was said so far is kept when it is stopped, and nothing when it fails."""
        before = list(self.messages)
        self.messages.append({"role": "user", "content": text})
        try:
            self._answer()
        except KeyboardInterrupt:  # before or after the answer was streamed
            self.messages = before
            self.console.print("\nStopped; the question was not kept.", style="yellow")
        except Exception as error:  # noqa: BLE001 (whatever failed, the conversation goes on)
            self.messages = before
            kind = "" if isinstance(error, UserError) else f"the answer failed: {type(error).__name__}: "
            self.console.print(f"{kind}{error}", style="red", markup=False)

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
        reason = self.engine.explain_end(answer)
        length = f", {reason.replace('max_new_tokens=', '--max-new-tokens ')}" if reason else ""
        self.console.print(
            f"\n{count} tokens{speed}, first after {1000 * (first - start):,.0f} ms, prompt {len(answer.prompt)} tokens "
            f"({answer.cached} cached){length}",
            style="dim",
        )

    def _fit(self) -> list[int]:
        """The tokens of the conversation, with room for an answer.

        The oldest turns are not shown to the model where the conversation has outgrown it, or the texts that it was
        trained on; they stay in what /save writes.
        """
        limits = [n for n in (self.engine.backend.max_length, self.engine.trained_length) if n is not None]
        limit, first = min(limits, default=None), 0
        while True:
            ids = self.engine.render(self._all_messages(first))
            room = min(self.sampling["max_new_tokens"], limit // ROOM) if limit is not None else 0
            if limit is None or len(ids) + room <= limit or first == len(self.messages) - 1:
                break
            first += 2
        if first:
            self.console.print(
                f"The model no longer sees the first {first} messages: it takes {limit} tokens with the answer.",
                style="yellow",
            )
        elif limit is not None and len(ids) + room > limit:
            self.console.print(
                f"The message has {len(ids)} tokens, and the model was made for {limit} with the answer.",
                style="yellow",
            )
        return ids
