"""`small-doge chat`: a conversation in the terminal."""

import contextlib
import io
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..inference.sampling_options import SamplingOptions
from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.logging import get_logger, quiet_libraries
from ..utils.paths import resolve_model
from ..utils.suggest import unknown_name_message
from . import options


if TYPE_CHECKING:
    from ..inference import Engine


logger = get_logger(__name__)

HELP = """/system TEXT  set the system message, and start a new conversation
/reset        start a new conversation
/save FILE    write the conversation to a JSON file
/help         show this list
/exit         end the chat (or Ctrl-D); Ctrl-C stops an answer"""
# Room is kept for an answer of --max-new-tokens, at most one ROOM-th of the model's length.
ROOM = 4
COMMANDS = ("system", "reset", "save", "help", "exit")


@options.with_sampling_options(*options.SAMPLING, max_new_tokens=512)
def chat(
    *,
    model: options.ModelArgument = None,
    system: Annotated[
        str | None, typer.Option(help="System message at the beginning of the conversation; none if not set.")
    ] = None,
    sampling: SamplingOptions,
    threads: options.Threads = None,
    quantize: options.CachedQuantize = options.Quantize.none,
) -> None:
    """Chat with a model in the terminal. /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends the chat.

    Answers go to standard output, everything else to standard error, so that a pipe gets the answers alone.
    """
    from ..inference.export_cache import open_fast_engine

    quiet_libraries()
    console = Console(highlight=False, stderr=True)  # standard output is for answers
    name = resolve_model(model)
    with console.status(f"Loading {name}"):
        engine = open_fast_engine(
            name, 1, threads, quantize, lambda text: console.print(text, style="dim", soft_wrap=True, markup=False)
        )
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
    """Read a line, with a prompt if a person types it; bytes that are not UTF-8 become U+FFFD."""
    prompt = "> " if sys.stdin.isatty() else ""
    if prompt and not sys.stdout.isatty():  # input() would write it among the answers
        sys.stderr.write(prompt)
        sys.stderr.flush()
        prompt = ""
    line = input(prompt).strip()
    text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if text != line:
        logger.warning("the input is not UTF-8; what could not be read became \ufffd")
    return text


def _is_conversation(path: Path) -> bool:
    """Tell whether a file is a conversation that /save wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() == {"messages"}


def _enable_line_editing() -> None:
    """Let arrow keys edit the line and recall earlier ones, where the platform has that."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    with contextlib.suppress(ImportError):  # not on every platform
        import readline  # noqa: F401  (arrow keys and earlier lines)


@dataclass
class Conversation:
    """A conversation with a model: answers are written to standard output, everything else to `console`."""

    engine: "Engine"
    sampling: SamplingOptions
    console: Console
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def obey(self, line: str) -> None:
        """Run a command of the chat; a mistake is reported and changes nothing."""
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
        """Write the conversation as JSON, or report why it can't be written."""
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
        """List the messages from number `start` on, after the system message."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return first + self.messages[start:]

    def ask(self, text: str) -> None:
        """Stream the answer to a message. A stopped answer is kept as far as it got, a failed one not at all."""
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
        """Stream the answer to the last message, and report its speed."""
        start = time.perf_counter()
        request = self.engine.submit(self._fit(), self.sampling)
        pieces, first = self.engine.follow_text(request), None
        parts: list[str] = []
        try:
            for piece in pieces:
                first = first or time.perf_counter()
                parts.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            self.console.print(" [stopped]", style="yellow", markup=False, end="")
        finally:
            pieces.close()
            print(flush=True)
        self.messages.append({"role": "assistant", "content": "".join(parts)})
        end, count = time.perf_counter(), len(request.output)
        first = first or end
        speed = f", {(count - 1) / (end - first):,.0f} tok/s" if count > 1 and end > first else ""
        reason = self.engine.explain_finish(request)
        length = f", {reason.replace('max_new_tokens=', '--max-new-tokens ')}" if reason else ""
        self.console.print(
            f"{count} tokens{speed}, first after {1000 * (first - start):,.0f} ms, prompt {len(request.prompt_ids)} tokens "
            f"({request.num_cached_tokens} cached){length}",
            style="dim",
        )

    def _fit(self) -> list[int]:
        """Tokenize the conversation, with room for an answer.

        If the conversation is longer than the model takes, or than the texts it was trained on, its oldest turns are
        left out. /save writes them all the same.
        """
        limits = [n for n in (self.engine.backend.max_length, self.engine.trained_length) if n is not None]
        limit, first = min(limits, default=None), 0
        while True:
            ids = self.engine.render(self._all_messages(first))
            room = min(self.sampling.max_new_tokens, limit // ROOM) if limit is not None else 0
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
