"""Byte-level BPE with a memory: the tokens of `tokenizers`, a word looked up in place of worked out.

Splitting a text into words takes `tokenizers` longer than anything else, and most words have been seen before. For the
splitting of Llama 3, which this project's tokenizers share, Python's `re` finds the same words several times as fast, as
long as a text holds only characters on whose kind both agree; any other text goes to `tokenizers` as a whole.
"""

import json
import re
import unicodedata
from itertools import chain

import numpy as np
from tokenizers import Tokenizer


# Llama 3's words: contractions, letters with one character before them, digits, marks, line ends, spaces. DIGITS stands
# for the number of digits that may share a token.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ASCII = (
    r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,DIGITS}| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UNICODE = (
    r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|(?:[^\w\r\n]|_)?[^\W\d_]+|\d{1,DIGITS}| ?(?:[^\s\w]|_)+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UNSAFE_ASCII = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Words kept, which bounds the memory: about 15 MB. Rarer ones are worked out each time.
MAXSPLIT_PATTERN = 2**16


class _Safe(dict):
    """Whether `re` and `tokenizers` agree on a character, whatever the Unicode version of each."""

    def __missing__(self, character: str) -> bool:
        kind = unicodedata.category(character)
        safe = kind == unicodedata.ucd_3_2_0.category(character) and character not in "\u017f\u212a"  # fold to s and k
        if kind in ("Cc", "Cn", "Co", "Cs", "Nl", "No"):
            safe = character in "\t\n\r"
        is_letter, is_digit, is_space = kind[0] == "L", kind == "Nd", kind[0] == "Z" or character in "\t\n\r"
        safe = safe and is_space == character.isspace() and is_digit == character.isdecimal()
        self[character] = safe and (is_letter or is_digit) == character.isalnum()
        return self[character]


_safe = _Safe()


class CachedTokenizer:
    """Tokens of texts as `tokenizers` gives them, without special tokens: those that a text spells out are text.

    Args:
        backend: any tokenizer; it is copied. The memory serves those of Llama 3's kind.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = copy_backend(backend)
        self.backend.encode_special_tokens = True
        specification = json.loads(self.backend.to_str())
        digits = _find_digits(specification)
        self.serves = digits is not None
        if self.serves:
            self._ascii, self._unicode = (re.compile(p.replace("DIGITS", digits)) for p in (_ASCII, _UNICODE))
            added = [re.escape(token["content"]) for token in specification["added_tokens"] if not token["special"]]
            self._added = re.compile("|".join(added)) if added else None
            self._words = _Words(self.backend)

    def find_longest_token(self) -> int | None:
        """Return the bytes of the longest token; None if tokens may stand for more text than they spell out.

        Those of Llama 3's kind stand for each byte of a text exactly once, unless an added token takes in the spaces
        beside it, or a byte is not in the vocabulary.
        """
        added = self.backend.get_added_tokens_decoder().values()
        words = self.backend.get_vocab(with_added_tokens=False)
        if (
            not self.serves
            or any(token.lstrip or token.rstrip for token in added)
            or not words.keys() >= set(byte_alphabet())
        ):
            return None
        # A word has a letter for each byte; added tokens stand as they are.
        return max(*map(len, words), *(len(token.content.encode()) for token in added))

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """int32 tokens of each text."""
        words = [self._split(text) for text in texts] if self.serves else [None] * len(texts)
        others = [text for text, found in zip(texts, words, strict=True) if found is None]
        encoded = iter(self.backend.encode_batch_fast(others, add_special_tokens=False) if others else [])
        lookup = self._words.__getitem__ if self.serves else None
        return [
            np.array(next(encoded).ids, dtype=np.int32)
            if found is None
            else np.fromiter(chain.from_iterable(map(lookup, found)), dtype=np.int32)
            for found in words
        ]

    def _split(self, text: str) -> list[str] | None:
        """Return the words of a text, or None if only `tokenizers` can be trusted with it."""
        if self._added is not None and self._added.search(text):
            return None
        if text.isascii():
            return None if _UNSAFE_ASCII.search(text) else self._ascii.findall(text)
        return self._unicode.findall(text) if all(map(_safe.__getitem__, set(text))) else None


class _Words(dict):
    """Tokens of words, by the tokenizer's own model."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self.model = backend.model
        self.alphabet = byte_alphabet()

    def __missing__(self, word: str) -> tuple[int, ...]:
        spelled = "".join(map(self.alphabet.__getitem__, word.encode("utf-8")))
        tokens = tuple(token.id for token in self.model.tokenize(spelled))
        if len(self) < MAXSPLIT_PATTERN:
            self[word] = tokens
        return tokens


def copy_backend(backend: Tokenizer) -> Tokenizer:
    """Return a tokenizer of its own, without the truncation and the padding that it was saved with."""
    copied = Tokenizer.from_str(backend.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def byte_alphabet() -> list[str]:
    """Return the letter that stands for each byte in byte-level BPE: itself if it can be seen, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(unseen)) for byte in range(256)]


def _find_digits(specification: dict) -> str | None:
    """Return how many digits may share a word, if the tokenizer splits as Llama 3 does and does nothing else to a text."""
    steps = (specification.get("pre_tokenizer") or {}).get("pretokenizers") or []
    model = specification["model"]
    plain_model = model.get("type") == "BPE" and not any(
        model.get(name) for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if specification.get("normalizer") is not None or len(steps) != 2 or not plain_model:
        return None
    split, byte_level = steps
    if split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert"):
        return None
    if byte_level.get("type") != "ByteLevel" or byte_level.get("add_prefix_space") or byte_level.get("use_regex"):
        return None
    pattern = split["pattern"].get("Regex", "")
    found = re.search(r"\\p\{N\}\{1,(\d)\}", pattern)
    return found[1] if found and pattern == SPLIT_PATTERN.replace("DIGITS", found[1]) else None
