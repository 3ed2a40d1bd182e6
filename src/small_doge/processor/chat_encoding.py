"""Texts and conversations into tokens, in one place: what stands in a text never becomes a control token.

The special tokens of a tokenizer (`<|eot_id|>`, `<|begin_of_text|>` and so on) steer a model. Only a chat template writes
them, and `encode_document` and `encode_prompt` put them around a text. The same letters in a message, a tool definition or
a document are encoded as the text that they are. For every other text the tokens are those of
`tokenizer.apply_chat_template` and of `tokenizer(text)`.
"""

import os.path
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from inspect import isfunction
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import render_jinja_template

from ..utils.errors import UserError
from .cached_bpe import CachedTokenizer, copy_backend


class EncodedChat(NamedTuple):
    """A rendered conversation.

    Attributes:
        ids: tokens.
        answers: 1 for the tokens that the template marks as the assistant's with {% generation %}, else 0; None where the
            mask was not asked for.
    """

    ids: list[int]
    answers: list[int] | None = None


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text alone, without any special token.

    Raises:
        ValueError: the text is not valid Unicode, or the tokenizer can't write it without a control token.
    """
    return _codec_of(tokenizer).encode_text(text)


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Encode many texts at once, as `encode_text` does: int32 tokens of each."""
    return _codec_of(tokenizer).encode_texts(texts)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None = None) -> list[int]:
    """Return the tokens of a text that a model goes on from, after those that the tokenizer puts before every text.

    A begin token that the text itself spells out at its start stands for the one that is put there.

    Raises:
        TooManyTokensError: the text has more than `max_tokens`, as its length alone tells; a shorter one may have more too.
        ValueError: as `encode_text`.
    """
    codec, begin = _codec_of(tokenizer), tokenizer.bos_token
    _check_unicode(text)
    codec.check_length(text, max_tokens)
    if codec.spells(text):
        codec.encode_text(text)  # refuses what must not be encoded
    ids = codec.encode_alone(text)
    if begin and text.startswith(begin) and ids[:1] == [tokenizer.bos_token_id]:
        return codec.encode_alone(text.removeprefix(begin))
    return ids


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> np.ndarray:
    """int32 tokens of a document to train on, between the begin and the end token. See `encode_documents`."""
    return encode_documents(tokenizer, [text])[0]


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """int32 tokens of documents to train on, each between the begin and the end token.

    A begin token at the start of a text, and an end token at its end, that the text itself spells out stand for those that
    are put there, so that neither is doubled.

    Raises:
        ValueError: as `encode_text`.
    """
    begin, end = tokenizer.bos_token or "", tokenizer.eos_token or ""
    inner = [text.removeprefix(begin).removesuffix(end) for text in texts]
    return [enclose(tokenizer, tokens) for tokens in encode_texts(tokenizer, inner)]


def enclose(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """int32 tokens between the begin and the end token, unless they stand there already."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    head = [begin] if begin is not None and (len(tokens) == 0 or tokens[0] != begin) else []
    tail = [end] if end is not None and (len(tokens) == 0 or tokens[-1] != end) else []
    return np.concatenate([np.asarray(piece, dtype=np.int32) for piece in (head, tokens, tail)])


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = False,
    template: str | None = None,
    with_answers: bool = False,
    max_tokens: int | None = None,
    **variables: Any,
) -> EncodedChat:
    """Encode a conversation as the chat template renders it.

    Args:
        tokenizer: of the model, a fast one.
        messages: {role, content} and what else the template reads.
        tools: definitions of functions that may be called.
        add_generation_prompt: whether to end where the assistant begins to speak.
        template: in place of the tokenizer's own.
        with_answers: whether to mark the assistant's tokens.
        max_tokens: as `encode_prompt`'s.
        variables: further variables of the template, and `continue_final_message`.

    Raises:
        TooManyTokensError: as `encode_prompt`.
        ValueError: there is no template, or it refuses the conversation; see also `encode_text`.
    """
    return encode_chats(
        tokenizer,
        [messages],
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        template=template,
        with_answers=with_answers,
        max_tokens=max_tokens,
        **variables,
    )[0]


def encode_chats(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[dict[str, Any]]],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = False,
    template: str | None = None,
    with_answers: bool = False,
    max_tokens: int | None = None,
    **variables: Any,
) -> list[EncodedChat]:
    """Encode many conversations at once, as `encode_chat` does."""
    codec = _codec_of(tokenizer)
    rendered, spans, restore = _render(
        tokenizer, conversations, tools, template, with_answers, add_generation_prompt, variables
    )
    for text in rendered:
        codec.check_length(text if restore is None or max_tokens is None else restore(text), max_tokens)
    if restore is None:
        encode = codec.live.encode_batch if with_answers else codec.live.encode_batch_fast  # without offsets
        encodings = encode(rendered, add_special_tokens=False)
        return [_mark(e.ids, e.offsets, s) for e, s in zip(encodings, spans, strict=True)]
    return [codec.encode_hidden(text, s, restore) for text, s in zip(rendered, spans, strict=True)]


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = False,
    template: str | None = None,
    **variables: Any,
) -> str:
    """Return the text that the chat template makes of a conversation; arguments and errors are `encode_chat`'s.

    For people to read: what a message spells out can't be told from what the template wrote.
    """
    [text], _, restore = _render(tokenizer, [messages], tools, template, False, add_generation_prompt, variables)
    return text if restore is None else restore(text)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[dict[str, Any]]],
    tools: Sequence[Any] | None,
    template: str | None,
    with_answers: bool,
    add_generation_prompt: bool,
    variables: dict[str, Any],
) -> tuple[list[str], "list[Spans]", Callable[[str], str] | None]:
    """Render conversations, with codes for the special tokens that they spell out.

    Returns:
        The texts, the spans of the assistant's characters in each, and what turns codes into text again, if there are any.
    """
    template = tokenizer.get_chat_template(template, list(tools) if tools else None)
    # Fields that hold nothing are left out, as `transformers` does: templates would write "None".
    chats = [[{k: v for k, v in turn.items() if v is not None} for turn in turns] for turns in conversations]
    tools = [get_json_schema(tool) if isfunction(tool) else tool for tool in tools] if tools else None
    chats, tools, variables, restore = _codec_of(tokenizer).hide([chats, tools, variables], template)
    try:
        rendered, spans = render_jinja_template(
            conversations=chats,
            tools=tools,
            chat_template=template,
            return_assistant_tokens_mask=with_answers,
            add_generation_prompt=add_generation_prompt,
            **{**tokenizer.special_tokens_map, **variables},
        )
    except (TemplateError, TypeError, KeyError) as error:
        raise UserError(f"the chat template refuses the conversation: {error}") from error
    except ValueError as error:
        if not variables.get("continue_final_message"):
            raise
        raise UserError(
            "the chat template does not write the last message as it is, so it can't be continued"
        ) from error
    return rendered, spans if with_answers else [None] * len(rendered), restore


def _mark(ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]] | None) -> EncodedChat:
    """Return tokens, with the mask of those that lie in one of the spans of characters, at least in part."""
    if spans is None:
        return EncodedChat(ids)
    starts, stops = [start for start, _ in offsets], [stop for _, stop in offsets]
    answers = [0] * len(ids)
    for start, stop in spans:
        first, last = bisect_right(stops, start), bisect_left(starts, stop)
        answers[first:last] = [1] * (last - first)
    return EncodedChat(ids, answers)


Spans = list[tuple[int, int]] | None


class TooManyTokensError(UserError):
    """A text has more tokens than it may.

    Attributes:
        least: the text has at least as many.
    """

    def __init__(self, least: int, limit: int) -> None:
        super().__init__(f"the prompt has at least {least} tokens, and {limit} are the most; shorten it")
        self.least = least


class _Codec:
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
        _check_unicode(text)
        ids = self.encode_alone(text, add_special_tokens=False)
        if self.spells(text):
            self._check(text, ids)
        return ids

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 tokens of texts, in which nothing is a special token."""
        for text in texts:
            _check_unicode(text)
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
            _check_unicode(text)
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
        return _mark(ids, offsets, moved)


def _check_unicode(text: str) -> None:
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


_codecs: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, _Codec]] = WeakKeyDictionary()


def _codec_of(tokenizer: PreTrainedTokenizerBase) -> _Codec:
    """Return the codec of a tokenizer, made once, and again when tokens were added to it."""
    state = (len(tokenizer), repr(tokenizer.special_tokens_map))
    known = _codecs.get(tokenizer)
    if known is None or known[0] != state:
        known = _codecs[tokenizer] = (state, _Codec(tokenizer))
    return known[1]
