"""Texts and conversations into token ids, and token ids into texts: the part of an engine that needs no model."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ..processor.cached_bpe import byte_alphabet
from ..processor.chat_encoding import encode_chat, encode_prompt, encode_text, render_chat
from ..utils.errors import UserError
from .detokenizer import Tokenizer
from .sampling_options import check_integer, check_tokens


# What no variable of a chat template can be called: arguments of ours, and of what renders templates.
ARGUMENTS = {
    *("self", "tokenizer", "conversations", "conversation", "messages", "tools", "template", "chat_template"),
    *("with_answers", "max_tokens", "tokenize", "return_assistant_tokens_mask"),
    *("continue_final_message", "add_generation_prompt"),
}


class Texts:
    """Turns what people write into token ids and back, with a model's tokenizer.

    Args:
        tokenizer: a fast tokenizer of `transformers`; None if only token ids go in and out.
        vocab_size: V, the number of token ids of the model.
        name: name of the model, for messages.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int, name: str) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.name = name

    # Into token ids.

    def encode(self, text: str, add_special_tokens: bool = True, max_tokens: int | None = None) -> list[int]:
        """Tokenize a text. What it spells out never becomes a control token.

        Args:
            text: the text.
            add_special_tokens: whether to put the model's begin tokens before it; one that the text spells out itself is
                not doubled then.
            max_tokens: a text whose length alone tells that it has more is refused before it is tokenized, if
                special tokens are added.

        Raises:
            TooManyTokensError: the text has more than `max_tokens`.
            UserError: the text is not valid Unicode, or the model has no tokenizer.
        """
        tokenizer = self._need_tokenizer("text")
        return encode_prompt(tokenizer, text, max_tokens) if add_special_tokens else encode_text(tokenizer, text)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        continue_final_message: bool = False,
        add_generation_prompt: bool = True,
        max_tokens: int | None = None,
        **variables: Any,
    ) -> list[int]:
        """Tokenize a conversation by the model's chat template, up to where the next answer begins.

        What a message spells out never becomes a control token.

        Args:
            messages: {role, content}, where the content is text. An assistant's may have `tool_calls` in OpenAI's form,
                with the arguments as JSON text or as a mapping.
            tools: definitions of functions that may be called, in OpenAI's form.
            continue_final_message: whether the last message, which is the assistant's, is left open, so that the model
                goes on with it. White space at its end is dropped if the template drops it.
            add_generation_prompt: whether to end where the assistant begins to speak.
            max_tokens: as in `encode`.
            variables: further variables of the template.

        Raises:
            TooManyTokensError: as `encode`.
            UserError: the model has no chat template, the template refuses the conversation, or the last message can't
                be continued.
        """
        arguments = self._prepare_chat(messages, tools, continue_final_message, add_generation_prompt, variables)
        return encode_chat(self.tokenizer, max_tokens=max_tokens, **arguments).ids

    def render_text(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        continue_final_message: bool = False,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Return the text that the chat template makes of a conversation; arguments and errors are those of `render`.

        For people to read: tokenized again, it is not always what `render` returns.
        """
        arguments = self._prepare_chat(messages, tools, continue_final_message, add_generation_prompt, variables)
        return render_chat(self.tokenizer, **arguments)

    def _prepare_chat(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None,
        continue_final_message: bool,
        add_generation_prompt: bool,
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        """Check a conversation, and make the arguments of `encode_chat` of it."""
        if not getattr(self._need_tokenizer("conversations"), "chat_template", None):
            raise UserError(f"{self.name} has no chat template: it was not trained to answer; use a plain prompt")
        check_variables(variables)
        if any(not isinstance(tool, Mapping) for tool in tools or ()):
            raise UserError("tools must be a list of definitions of functions in OpenAI's form")
        chat = [_check_message(place, message) for place, message in enumerate(messages)]
        if continue_final_message:
            if _has_begun(chat):
                variables, add_generation_prompt = {**variables, "continue_final_message": True}, False
            else:  # nothing is said yet: the answer begins
                chat, add_generation_prompt = chat[:-1], True
        return {"messages": chat, "tools": tools, "add_generation_prompt": add_generation_prompt, **variables}

    # Into text.

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of token ids; bytes that are no whole character become U+FFFD.

        Args:
            ids: the token ids.
            skip_special_tokens: whether to leave special tokens out, which otherwise stand there by name.

        Raises:
            UserError: a token that the model does not have, or the model has no tokenizer.
        """
        backend = self._need_tokenizer("text").backend_tokenizer
        checked = check_tokens("ids", ids)
        for place, token_id in enumerate(checked):
            if token_id >= self.vocab_size:
                check_integer(f"ids[{place}]", token_id, 0, self.vocab_size - 1)
        # As a batch of its own: only batches let other threads run meanwhile.
        return backend.decode_batch([checked], skip_special_tokens=skip_special_tokens)[0]

    def piece(self, token_id: int) -> str:
        r"""Return the text of a single token: a special one by name, bytes that are no whole character as `\xc3`.

        A token id for which the tokenizer has no entry is shown as its number in brackets.

        Raises:
            UserError: a token that the model does not have, or the model has no tokenizer.
        """
        spelled = self.token_bytes(token_id)
        return spelled.decode("utf-8", errors="backslashreplace") if spelled else f"[{token_id}]"

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a single token stands for, a special one's name; none if the tokenizer has no entry.

        Raises:
            UserError: as `piece`.
        """
        backend = self._need_tokenizer("text").backend_tokenizer
        token_id = check_integer("token", token_id, 0, self.vocab_size - 1)
        text = backend.decode([token_id], skip_special_tokens=False)
        if "\ufffd" not in text:
            return text.encode()
        spelled, bytes_by_letter = backend.id_to_token(token_id), _bytes_by_letter()
        if all(letter in bytes_by_letter for letter in spelled):  # byte-level BPE
            return bytes(bytes_by_letter[letter] for letter in spelled)
        return spelled.encode()

    def _need_tokenizer(self, what: str) -> Tokenizer:
        """Return the tokenizer, or say what can't be done without it."""
        if self.tokenizer is None:
            raise UserError(f"{self.name} has no tokenizer, which {what} need; pass token ids to stream()")
        return self.tokenizer


def check_variables(variables: Mapping[str, Any]) -> None:
    """Raise a `UserError` for a variable of a chat template that has the name of an argument."""
    taken = min(ARGUMENTS.intersection(variables), default=None)
    if taken is not None:
        raise UserError(f"{taken} can't be a variable of the chat template; leave it out")


@cache
def _bytes_by_letter() -> dict[str, int]:
    """Return the byte that each letter of byte-level BPE stands for."""
    return {letter: byte for byte, letter in enumerate(byte_alphabet())}


def _check_message(place: int, message: Any) -> dict[str, Any]:
    """Return a message whose calls of tools have their arguments as mappings, as chat templates take them."""
    if not isinstance(message, Mapping):
        raise UserError(f"messages[{place}] must be a {{role, content}}, not {type(message).__name__}")
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
        raise UserError(f"messages[{place}].tool_calls must be a list of calls in OpenAI's form")
    return {**message, "tool_calls": [_read_call(place, dict(call)) for call in calls]}


def _read_call(place: int, call: dict[str, Any]) -> dict[str, Any]:
    """Return a call of a tool with its arguments as a mapping."""
    function = call.get("function", call)
    if not isinstance(function, Mapping):
        raise UserError(f"messages[{place}].tool_calls holds a call whose function is {type(function).__name__}")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise UserError(f"messages[{place}].tool_calls holds arguments that are no JSON") from None
    if not isinstance(arguments, Mapping):
        raise UserError(f"messages[{place}].tool_calls holds arguments without names")
    read = {**function, "arguments": dict(arguments)}
    return {**call, "function": read} if "function" in call else read


def _has_begun(chat: list[dict[str, Any]]) -> bool:
    """Tell whether the last message, which is to be continued, says anything yet.

    Raises:
        UserError: it is not an answer in text.
    """
    last = chat[-1] if chat else {}
    if last.get("role") != "assistant":
        raise UserError("continue_final_message needs a last message of the assistant, which is what is continued")
    if last.get("tool_calls"):
        raise UserError("continue_final_message can't continue a message that calls tools; leave one of them out")
    content = last.get("content") or ""
    if not isinstance(content, str):
        raise UserError("continue_final_message needs a last message whose content is text")
    return bool(content.strip())
