"""Texts and conversations into tokens, in one place: what stands in a text never becomes a control token.

The special tokens of a tokenizer (`<|eot_id|>`, `<|begin_of_text|>` and so on) steer a model. Only a chat template writes
them, and `encode_document` and `encode_prompt` put them around a text. The same letters in a message, a tool definition or
a document are encoded as the text that they are. For every other text the tokens are those of
`tokenizer.apply_chat_template` and of `tokenizer(text)`.
"""

from collections.abc import Callable, Sequence
from inspect import isfunction
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import render_jinja_template

from ..utils.errors import UserError
from .token_codec import EncodedChat, Spans, check_unicode, get_codec, mark_answers


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text alone, without any special token.

    Raises:
        ValueError: the text is not valid Unicode, or the tokenizer can't write it without a control token.
    """
    return get_codec(tokenizer).encode_text(text)


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Encode many texts at once, as `encode_text` does: int32 tokens of each."""
    return get_codec(tokenizer).encode_texts(texts)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int | None = None) -> list[int]:
    """Return the tokens of a text that a model goes on from, after those that the tokenizer puts before every text.

    A begin token that the text itself spells out at its start stands for the one that is put there.

    Raises:
        TooManyTokensError: the text has more than `max_tokens`, as its length alone tells; a shorter one may have more too.
        ValueError: as `encode_text`.
    """
    codec, begin = get_codec(tokenizer), tokenizer.bos_token
    check_unicode(text)
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
    codec = get_codec(tokenizer)
    rendered, spans, restore = _render(
        tokenizer, conversations, tools, template, with_answers, add_generation_prompt, variables
    )
    for text in rendered:
        codec.check_length(text if restore is None or max_tokens is None else restore(text), max_tokens)
    if restore is None:
        encode = codec.live.encode_batch if with_answers else codec.live.encode_batch_fast  # without offsets
        encodings = encode(rendered, add_special_tokens=False)
        return [mark_answers(e.ids, e.offsets, s) for e, s in zip(encodings, spans, strict=True)]
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
) -> tuple[list[str], list[Spans], Callable[[str], str] | None]:
    """Render conversations, with codes for the special tokens that they spell out.

    Returns:
        The texts, the spans of the assistant's characters in each, and what turns codes into text again, if there are any.
    """
    template = tokenizer.get_chat_template(template, list(tools) if tools else None)
    # Fields that hold nothing are left out, as `transformers` does: templates would write "None".
    chats = [[{k: v for k, v in turn.items() if v is not None} for turn in turns] for turns in conversations]
    tools = [get_json_schema(tool) if isfunction(tool) else tool for tool in tools] if tools else None
    chats, tools, variables, restore = get_codec(tokenizer).hide([chats, tools, variables], template)
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
