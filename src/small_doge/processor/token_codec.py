"""A tokenizer as it encodes texts: the special tokens that a text spells out stay text.

`chat_encoding` has what is built on it.
"""

import os.path
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..utils.errors import UserError
from .cached_bpe import CachedTokenizer, copy_backend


Spans = list[tuple[int, int]] | None


class EncodedChat(NamedTuple):
    """A rendered conversation.

    Attributes:
        ids: tokens.
        answers: 1 for the tokens that the template marks as the assistant's with {% generation %}, else 0; None where the
            mask was not asked for.
    """

    ids: list[int]
    answers: list[int] | None = None


class TooManyTokensError(UserError):
    """A text has more tokens than it may.

    Attributes:
        least: the text has at least as many.
    """

    def __init__(self, least: int, limit: int) -> None:
        super().__init__(f"the prompt has at least {least} tokens, and {limit} are the most; shorten it")
        self.least = least


class TokenCodec:
    """A tokenizer's backend twice: one that knows its special tokens, and one to which they are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                f"processing_class: {type(tokenizer).__name__} is not a fast tokenizer of transformers, which encodes "
                "texts apart from control tokens; load the model's tokenizer with AutoTokenizer"
            )
        self.live = copy_backend(tokenizer.backend_tokenizer)
        self.words = CachedTokenizer(tokenizer.backend_tokenizer)
        special = {t.content: t for t in self.live.get_added_tokens_decoder().values() if t.special and t.content}
        self.ids = {content: self.live.token_to_id(content) for content in special}
        longest_first = sorted(special, key=len, reverse=True)
        self.literal = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.shared = os.path.commonprefix(longest_first)  # noqa: RUF071 (of letters; a fast first look)
        around = [
            (r"\s*" if special[c].lstrip else "") + f"({re.escape(c)})" + (r"\s*" if special[c].rstrip else "")
            for c in longest_first
        ]
        self.written = re.compile("|".join(around) or "(?!)")
        self.longest = self.words.find_longest_token()

    def check_length(self, text: str, max_tokens: int | None) -> None:
        """Refuse a text that has more than `max_tokens` even if all of them were the longest of the vocabulary."""
        if max_tokens is None or self.longest is None or len(text) <= max_tokens:
            return
        least = -(-len(text.encode()) // self.longest)
        if least > max_tokens:
            raise TooManyTokensError(least, max_tokens)

    def encode_alone(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the tokens of one text as a batch of its own: only batches let other threads run meanwhile."""
        return self.words.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of one text, in which nothing is a special token."""
        check_unicode(text)
        ids = self.encode_alone(text, add_special_tokens=False)
        if self.spells(text):
            self._check(text, ids)
        return ids

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 tokens of texts, in which nothing is a special token."""
        for text in texts:
            check_unicode(text)
        encoded = self.words.encode(list(texts))
        for text, tokens in zip(texts, encoded, strict=True):
            if self.spells(text):
                self._check(text, tokens.tolist())
        return encoded

    def spells(self, text: str) -> bool:
        """Tell whether a text spells out a special token."""
        return self.shared in text and self.literal.search(text) is not None

    def _check(self, text: str, ids: list[int]) -> None:
        """Refuse ids of a special token, which some vocabularies hold as an ordinary word too."""
        made = next((content for content, number in self.ids.items() if content in text and number in ids), None)
        if made is not None:
            raise UserError(f"the tokenizer makes a control token of the text {made!r}, which can't be told from it")

    def hide(self, inputs: list[Any], template: str) -> tuple[Any, Any, Any, Callable[[str], str] | None]:
        """Put a code in place of each special token of what a template is given; return it, and what turns codes into text again.

        Codes are letters and digits, which templates pass on as they are. None in place of the last where there is
        nothing to hide.
        """
        strings: list[str] = []
        _collect_strings(inputs, strings)
        for text in strings:
            check_unicode(text)
        if not any(map(self.spells, strings)):
            return (*inputs, None)
        everything = "\n".join([template, *strings]).lower()
        taken = set(re.findall("q[0-9]+z", everything))
        key = next(key for key in (f"q{number}z" for number in count()) if key not in taken)
        literals = list(self.ids)
        code = re.compile(f"{key}([0-9]+){key}")

        def restore(text: str) -> str:
            text = code.sub(lambda match: literals[int(match[1])], text)
            if key in text.lower():
                raise UserError("the chat template changes the letters of a message that spells out a special token")
            return text

        def encode(text: str) -> str:
            return self.literal.sub(lambda match: f"{key}{literals.index(match[0])}{key}", text)

        return (*_map_strings(inputs, encode), restore)

    def encode_hidden(self, text: str, spans: Spans, restore: Callable[[str], str]) -> EncodedChat:
        """Encode a rendered conversation with codes in it: what is a special token there was written by the template."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        position = 0
        matches = list(self.written.finditer(text))
        starts, stops = [0, *(m.end() for m in matches)], [*(m.start() for m in matches), len(text)]
        pieces = [restore(text[start:stop]) for start, stop in zip(starts, stops, strict=True)]
        encodings = self.words.backend.encode_batch(pieces, add_special_tokens=False)
        for piece, encoding, match in zip(pieces, encodings, [*matches, None], strict=True):
            self._check(piece, encoding.ids)
            ids += encoding.ids
            offsets += [(a + position, b + position) for a, b in encoding.offsets]
            position += len(piece)
            if match is not None:
                ids.append(self.ids[next(filter(None, match.groups()))])
                offsets.append((position, position + len(match[0])))
                position += len(match[0])
        moved = None if spans is None else [(len(restore(text[:a])), len(restore(text[:b]))) for a, b in spans]
        return mark_answers(ids, offsets, moved)


def mark_answers(ids: list[int], offsets: list[tuple[int, int]], spans: Spans) -> EncodedChat:
    """Return tokens, with the mask of those that lie in one of the spans of characters, at least in part."""
    if spans is None:
        return EncodedChat(ids)
    starts, stops = [start for start, _ in offsets], [stop for _, stop in offsets]
    answers = [0] * len(ids)
    for start, stop in spans:
        first, last = bisect_right(stops, start), bisect_left(starts, stop)
        answers[first:last] = [1] * (last - first)
    return EncodedChat(ids, answers)


def check_unicode(text: str) -> None:
    """Refuse a text with half characters in it."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the text is not valid Unicode: half a character at {error.start}") from None


def _collect_strings(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        found += [key for key in value if isinstance(key, str)]
        for item in value.values():
            _collect_strings(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect_strings(item, found)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value


_codecs: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, TokenCodec]] = WeakKeyDictionary()


def get_codec(tokenizer: PreTrainedTokenizerBase) -> TokenCodec:
    """Return the codec of a tokenizer, made once, and again when tokens were added to it."""
    state = (len(tokenizer), repr(tokenizer.special_tokens_map))
    known = _codecs.get(tokenizer)
    if known is None or known[0] != state:
        known = _codecs[tokenizer] = (state, TokenCodec(tokenizer))
    return known[1]
