"""Detokenization: from token ids to text, incrementally."""

from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers.decoders import DecodeStream


class Tokenizer(Protocol):
    """What inference needs of a fast tokenizer of `transformers`.

    Attributes:
        backend_tokenizer: the `tokenizers.Tokenizer` behind it.
        added_tokens_decoder: the added tokens by their ids; each has a `content`, and is `special` or not.
        chat_template: a Jinja template for conversations, or None.
    """

    backend_tokenizer: Any
    added_tokens_decoder: dict[int, Any]
    chat_template: str | None

    def __len__(self) -> int:
        """Count the entries of the vocabulary."""

    def save_pretrained(self, folder: Any) -> Any:
        """Write the tokenizer's files."""


class Detokenizer:
    """Turns token ids into pieces of text: whole characters, no special tokens, and nothing from a stop text on.

    Args:
        tokenizer: a fast one.
        stop: texts that end the output. A special token in them is matched by that token of the output.

    Attributes:
        text: all text returned so far.
        stopped: the stop text that was found, or None.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.special = {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.stop = tuple(stop)
        self.text = ""
        self.held: list[tuple[str, bool]] = []  # characters not yet returned, and whether each is shown
        self.pending: list[int] = []  # token ids since the last whole character
        self.stopped: str | None = None

    def push(self, token_id: int) -> str:
        """Take in a token id and return the text that it completes, which may be empty."""
        if self.stopped is not None:
            return ""
        if token_id in self.special:
            new, shown = self.special[token_id], False
        else:
            new, shown = self.decoder.step(self.backend, token_id) or "", True
            self.pending = [] if new else [*self.pending, token_id]
        self.held += [(character, shown) for character in new]
        held = "".join(character for character, _ in self.held)
        found = [(held.find(text), text) for text in self.stop if text in held]
        if found:
            end, self.stopped = min(found)
            return self._release(end)
        return self._release(len(held) - self._count_held_back(held))

    def finish(self) -> str:
        """Return the text that was held back, at the end of the output; half a character becomes U+FFFD."""
        if self.stopped is not None:
            return ""
        rest = self.backend.decode(self.pending, skip_special_tokens=True) if self.pending else ""
        self.pending = []
        self.held += [(character, True) for character in rest]
        return self._release(len(self.held))

    def _release(self, end: int) -> str:
        """Return the first `end` characters that were held back, without those that are not shown."""
        piece = "".join(character for character, shown in self.held[:end] if shown)
        self.held = self.held[end:]
        self.text += piece
        return piece

    def _count_held_back(self, held: str) -> int:
        """Count the characters at the end that may begin a stop text."""
        lengths = (n for text in self.stop for n in range(1, len(text)) if held.endswith(text[:n]))
        return max(lengths, default=0)
