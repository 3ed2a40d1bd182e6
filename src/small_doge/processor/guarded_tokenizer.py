"""A tokenizer for libraries that render conversations themselves, which keeps what `chat_encoding` promises."""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from transformers import BatchEncoding, PreTrainedTokenizerBase

from .chat_encoding import encode_chats


def guard_tokenizer(tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> PreTrainedTokenizerBase:
    """Copy a tokenizer for libraries that render conversations themselves, such as TRL: it encodes them by `encode_chats`.

    What it saves is what the plain tokenizer saves.

    Args:
        tokenizer: of the model, a fast one.
        template: in place of the tokenizer's own.
    """
    guarded = copy.deepcopy(tokenizer)
    guarded.__class__ = _guarded_class(cast(Any, type(tokenizer)))
    guarded.split_special_tokens = True  # in texts that are no conversations
    if template is not None:
        guarded.chat_template = template
    return guarded


class _Guarded:
    """Put before a tokenizer's class among the bases."""

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Encode as in `transformers`, with control tokens as text, but for an end token that a single text ends with."""
        parent, end = cast(Any, super()), cast(Any, self).eos_token
        if not (isinstance(text, str) and end and text.endswith(end)):
            return parent.__call__(text, *args, **kwargs)
        out = parent.__call__(text.removesuffix(end), *args, **kwargs)
        for name, value in (("input_ids", cast(Any, self).eos_token_id), ("attention_mask", 1)):
            if name in out:
                out[name] = [*out[name], value]
        return out

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Sequence[Any] | None = None,
        chat_template: str | None = None,
        *,
        tokenize: bool = True,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        padding: bool | str = False,
        return_tensors: str | None = None,
        **variables: Any,
    ) -> Any:
        """Apply the template as in `transformers`, but for truncation."""
        if not tokenize:
            parent = cast(Any, super())
            return parent.apply_chat_template(conversation, tools, None, chat_template, tokenize=False, **variables)
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        tokenizer = cast(Any, self)
        chats = encode_chats(
            tokenizer,
            conversation if batched else [conversation],
            tools=tools,
            template=chat_template,
            with_answers=return_assistant_tokens_mask,
            **variables,
        )
        columns = {"input_ids": [chat.ids for chat in chats]}
        if return_assistant_tokens_mask:
            columns["assistant_masks"] = [cast(list, chat.answers) for chat in chats]
        if not batched and return_tensors is None:
            columns = {name: rows[0] for name, rows in columns.items()}
        out: BatchEncoding = tokenizer.pad(columns, padding=padding, return_tensors=return_tensors)
        return out if return_dict else out["input_ids"]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save the files of the plain tokenizer."""
        return self._plain().save_pretrained(*args, **kwargs)

    def _plain(self) -> PreTrainedTokenizerBase:
        base = type(self).__mro__[2]
        plain: Any = object.__new__(base)
        plain.__dict__.update({**self.__dict__, "split_special_tokens": False})
        return plain

    def __reduce__(self) -> Any:
        return guard_tokenizer, (self._plain(),)

    def __deepcopy__(self, memo: dict) -> Any:
        return guard_tokenizer(self._plain())


@lru_cache
def _guarded_class(base: type) -> type:
    return base if issubclass(base, _Guarded) else type(base.__name__, (_Guarded, base), {})
