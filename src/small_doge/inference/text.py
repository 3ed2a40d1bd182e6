"""From tokens to text, as they come."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Turns tokens into pieces of text: never half a character, no special token, and nothing from a stop text on.

    Args:
        tokenizer: of `transformers`, a fast one.
        stop: texts that end the answer. A special token in them is met by that token of the answer.

    Attributes:
        text: all that was given out.
        stopped: the stop text that was met, or None.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.special = {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.stop = tuple(stop)
        self.text = ""
        self.held: list[tuple[str, bool]] = []  # characters, and whether they are shown
        self.pending: list[int] = []  # tokens since the last whole character
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        """The new text after a token, which may be empty."""
        if self.stopped is not None:
            return ""
        if token in self.special:
            new, shown = self.special[token], False
        else:
            new, shown = self.decoder.step(self.backend, token) or "", True
            self.pending = [] if new else [*self.pending, token]
        self.held += [(character, shown) for character in new]
        held = "".join(character for character, _ in self.held)
        found = [(held.find(text), text) for text in self.stop if text in held]
        if found:
            end, self.stopped = min(found)
            return self._give(end)
        return self._give(len(held) - self._count_held_back(held))

    def finish(self) -> str:
        """What was held back, at the end of the answer; half a character becomes U+FFFD."""
        if self.stopped is not None:
            return ""
        rest = self.backend.decode(self.pending, skip_special_tokens=True) if self.pending else ""
        self.pending = []
        self.held += [(character, True) for character in rest]
        return self._give(len(self.held))

    def _give(self, end: int) -> str:
        piece = "".join(character for character, shown in self.held[:end] if shown)
        self.held = self.held[end:]
        self.text += piece
        return piece

    def _count_held_back(self, held: str) -> int:
        """Characters at the end that may begin a stop text."""
        lengths = (n for text in self.stop for n in range(1, len(text)) if held.endswith(text[:n]))
        return max(lengths, default=0)
