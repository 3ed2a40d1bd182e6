"""The parts of an answer while it is written: what the model thinks, what it says, and the tools that it calls."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from ..inference import Token
from ..inference.tool_calls import ToolCall, ToolCallReader


OPEN, CLOSE = "<think>", "</think>"


class Part(NamedTuple):
    """A piece of thinking or of text."""

    is_thinking: bool
    text: str


class AnswerReader:
    """Tells the parts of an answer apart. What is not asked for stays text, as the model wrote it.

    Args:
        with_thinking: whether thoughts are told apart: what stands between `<think>` and `</think>` at the beginning.
        with_tools: whether calls of tools are.

    Attributes:
        calls: the calls of tools, once the answer is finished.
    """

    def __init__(self, with_thinking: bool, with_tools: bool) -> None:
        self.tools = ToolCallReader() if with_tools else None
        self.calls: list[ToolCall] = []
        self._state: Literal["start", "thinking", "between", "saying"] = "start" if with_thinking else "saying"
        self._held = ""

    def read(self, tokens: Iterable[Token]) -> list[Part]:
        """Take in tokens; return the parts that are certain."""
        self._held += "".join(token.text for token in tokens)
        return list(self._advance())

    def finish(self) -> list[Part]:
        """Return the rest of the parts, and take note of the calls."""
        parts = [Part(True, self._held)] if self._state == "thinking" else list(self._say())
        if self.tools is not None:
            text, self.calls = self.tools.finish()
            parts.append(Part(False, text))
        return [part for part in parts if part.text]

    def _advance(self) -> Iterator[Part]:
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(OPEN):
                self._state, self._held = "thinking", begun.removeprefix(OPEN)
            elif not OPEN.startswith(begun):
                self._state = "saying"
        if self._state == "thinking":
            thought, mark, rest = self._held.partition(CLOSE)
            if mark:
                self._state, self._held = "between", rest
            else:  # its end may be the beginning of the mark
                size = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
                thought, self._held = thought[: len(thought) - size], thought[len(thought) - size :]
            if thought:
                yield Part(True, thought)
        if self._state == "between":  # blank lines after a thought are no part of what is said
            self._held = self._held.lstrip()
            self._state = "saying" if self._held else "between"
        if self._state == "saying":
            yield from self._say()

    def _say(self) -> Iterator[Part]:
        text, self._held = self._held, ""
        said = text if self.tools is None else self.tools.push(text)
        if said:
            yield Part(False, said)
