"""From tokens to text, as they come."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Turns tokens into pieces of text: never half a character, and nothing from a stop text on.

    Args:
        tokenizer: of `transformers`, a fast one.
        stop: texts that end the answer.

    Attributes:
        text: all that was given out.
        stopped: the stop text that was met, or None.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.stop = tuple(stop)
        self.text = self.held = ""
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        """The new text after a token, which may be empty."""
        if self.stopped is not None:
            return ""
        self.held += self.decoder.step(self.backend, token) or ""
        found = [(self.held.find(text), text) for text in self.stop if text in self.held]
        if found:
            end, self.stopped = min(found)
            return self._give(end)
        return self._give(len(self.held) - self._count_held_back())

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.stopped is not None else self._give(len(self.held))

    def _give(self, end: int) -> str:
        piece, self.held = self.held[:end], self.held[end:]
        self.text += piece
        return piece

    def _count_held_back(self) -> int:
        """Characters at the end that may begin a stop text."""
        lengths = (n for text in self.stop for n in range(1, len(text)) if self.held.endswith(text[:n]))
        return max(lengths, default=0)
