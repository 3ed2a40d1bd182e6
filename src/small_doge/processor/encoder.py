"""What each row format makes of a row: tokens with a loss mask, a preference, or a problem to verify."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from transformers import PreTrainedTokenizerBase

from ..utils.answers import find_fault
from ..utils.errors import UserError
from ..utils.logging import get_logger
from .chat_encoding import enclose, encode_chats, encode_documents, encode_text
from .chat_template import CHAT_TEMPLATE, SPECIAL_TOKENS
from .data_config import DataConfig
from .messages import Message, RowError, check_unicode, find_first, is_blank, read_tools
from .row_schemas import (
    CONVERSATION_FIELDS,
    SCHEMA_FIELDS,
    AnsweredRow,
    drop_thought_field,
    has_known_schema,
    is_preference,
    mark_thought,
    read_conversation,
    read_preference,
    read_problem,
    read_prompt,
)
from .token_codec import EncodedChat


logger = get_logger(__name__)

# In place of a reason: the row is of another format.
SKIPPED = ""
IGNORED = -100
# Characters tokenised together: an encoding holds about 100 bytes a token while it is alive.
BATCH_CHARACTERS = 1_000_000
BATCH_ROWS = 256

_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
_TOKENS = pa.list_(pa.int32())


@dataclass
class Example:
    """A row in its format.

    Args:
        key: of what the model is asked, or of the whole text: examples with one key must not be in both splits.
        tokens: int32, for formats that give tokens.
        labels: tokens to learn, -100 elsewhere; None when all are learnt.
        fields: for formats that give messages.
        size: tokens.
    """

    key: int
    tokens: np.ndarray | None = None
    labels: np.ndarray | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    size: int = 0


class Encoder:
    """Renders and tokenises rows.

    Args:
        tokenizer: of the model, a fast one.
        config: what to make of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: DataConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.text_field = config.dataset_text_field or "text"
        encode_text(tokenizer, "")  # refuses tokenizers that can't tell texts from control tokens
        needs_template = config.row_format != "text" or config.apply_chat_template
        self.template = choose_template(tokenizer, config.gives_tokens) if needs_template else None

    def encode(self, rows: list[dict[str, Any]]) -> list[Example | str]:
        """Make an example of each row, or say why it gives none; an empty reason stands for rows of another format."""
        rendered = [self._render(row) for row in rows]
        results: list[Example | str] = [r if isinstance(r, str) else "" for r in rendered]
        ways: dict[Callable, list[int]] = {}
        for index, content in enumerate(rendered):
            if isinstance(content, dict):
                way = self._encode_texts if "text" in content else self._encode_chats
                ways.setdefault(way if self.config.gives_tokens else self._keep_messages, []).append(index)
        for way, indices in ways.items():
            for index, result in zip(indices, way([rendered[i] for i in indices]), strict=True):
                results[index] = result
        return results

    def _render(self, row: dict[str, Any]) -> dict[str, Any] | str:
        """Return {"text"}, {"messages", "tools"} or a preference or problem; or why there is none."""
        try:
            if self.config.formatting_func is not None:
                row = self._apply_formatting_func(row)
            return self._read(row)
        except RowError as error:
            return str(error)

    def _apply_formatting_func(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            content = self.config.formatting_func(AnsweredRow(row))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RowError(f"formatting_func: {type(error).__name__}: {error}") from error
        if isinstance(content, dict):
            return content
        if isinstance(content, list) and content and isinstance(content[0], dict):
            return {"messages": content}
        return {self.text_field: content}

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        config = self.config
        if config.row_format in ("preference", "problem", "prompt") and read_tools(row.get("tools")):
            raise RowError(f"a row of the format {config.row_format} can't hold the definitions in tools")
        if config.row_format == "preference":
            if not is_preference(row):
                raise RowError(SKIPPED)
            preference = read_preference(row)
            return {name: self._prepare(turns, name == "prompt") for name, turns in preference.items()}
        if config.row_format == "problem":
            problem = read_problem(row)
            if fault := find_fault(problem["solution"]):
                raise RowError(f"its reference answer can't be verified: {fault}")
            return {**problem, "prompt": self._prepare(problem["prompt"], True)}
        if config.row_format == "prompt":
            return {"prompt": self._prepare(read_prompt(row)["prompt"], True)}
        text = row.get(self.text_field)
        is_chat = has_known_schema(row) and (config.row_format == "conversation" or is_blank(text))
        if config.apply_chat_template and not is_chat and not is_blank(text) and not is_blank(row.get("prompt")):
            row, is_chat = {"prompt": row["prompt"], "completion": text}, True  # cosmopedia-v2's form
        if (
            config.row_format == "text"
            and not config.apply_chat_template
            and not find_first(row, CONVERSATION_FIELDS)[0]
        ):
            is_chat = False
        if not is_chat:
            return {"text": self._read_text(row)}
        return {"messages": self._prepare(read_conversation(row), True), "tools": read_tools(row.get("tools"))}

    def _read_text(self, row: dict[str, Any]) -> str:
        name = self.text_field
        if name not in row:
            blank = next((field for field in SCHEMA_FIELDS if field in row and is_blank(row[field])), None)
            raise RowError(f"no field {name!r}" + (f", and {blank} is empty" if blank else ""))
        text = row[name]
        if not isinstance(text, str):
            raise RowError(f"{name} is {'null' if text is None else type(text).__name__ + ', not text'}")
        if not text.strip():
            raise RowError(f"{name} is empty")
        return check_unicode(text, name)

    def _prepare(self, messages: list[Message], is_start: bool) -> list[Message]:
        """Put thoughts in their place, and the system prompt and the identity before a conversation's start."""
        config = self.config
        if config.apply_thinking_template:
            messages = [
                mark_thought(message, (config.thinking_tags[0], config.thinking_tags[1])) for message in messages
            ]
        messages = [drop_thought_field(message) for message in messages]
        if not is_start:
            return messages
        system = messages[:1] if messages[0]["role"] == "system" else []
        rest = messages[len(system) :]
        if config.system_prompt and not system:
            system = [{"role": "system", "content": config.system_prompt}]
        if config.identity and _key(_prompt_text(rest)) % 10_000 < config.identity_share * 10_000:
            asked = {"role": "user", "content": "Who are you?"}
            rest = [asked, {"role": "assistant", "content": config.identity}, *rest]
        return system + rest

    def _encode_texts(self, rendered: list[dict[str, Any]]) -> list[Example | str]:
        texts = [content["text"] for content in rendered]
        try:
            encoded = encode_documents(self.tokenizer, texts)
        except ValueError as error:
            if len(rendered) == 1:
                return [str(error)]
            return [self._encode_texts([content])[0] for content in rendered]
        # Beside conversations, whose labels are those of their answers, a text needs labels of its own: all of it is learnt.
        learns_parts = self.config.row_format == "conversation"
        return [
            Example(_key(text), tokens, np.asarray(tokens, dtype=np.int32) if learns_parts else None, size=len(tokens))
            for text, tokens in zip(texts, encoded, strict=True)
        ]

    def _encode_chats(self, chats: list[dict[str, Any]]) -> Iterator[Example | str]:
        plain = [i for i, chat in enumerate(chats) if not chat["tools"]]
        encoded = dict(zip(plain, self._apply_template([chats[i]["messages"] for i in plain]), strict=True))
        for i, chat in enumerate(chats):
            result = encoded[i] if i in encoded else self._apply_template([chat["messages"]], chat["tools"])[0]
            if isinstance(result, str):
                yield result
            else:
                yield self._learn(_key(_prompt_text(_before_answer(chat["messages"]))), result)

    def _learn(self, key: int, chat: EncodedChat) -> Example | str:
        tokens, mask = np.asarray(chat.ids, dtype=np.int32), np.asarray(chat.answers, dtype=bool)
        if self.config.row_format == "text":
            tokens = enclose(self.tokenizer, tokens)
            return Example(key, tokens, size=len(tokens))
        if not mask.any():
            return "no token of an answer is marked by the chat template"
        labels = np.where(mask, tokens, IGNORED).astype(np.int32)
        # The first token of a row has nothing before it that could predict it.
        if not (labels[1 : self.config.max_length] != IGNORED).any():
            return f"the answer begins after max_length={self.config.max_length} tokens and would be cut away"
        return Example(key, tokens[: self.config.max_length], labels[: self.config.max_length], size=len(tokens))

    def _keep_messages(self, rendered: list[dict[str, Any]]) -> Iterator[Example | str]:
        """Yield rows that their trainer renders: preferences, problems or conversations."""
        faults = [self._find_fault(content) for content in rendered]
        usable = [content for content, fault in zip(rendered, faults, strict=True) if not fault]
        measured = iter(self._measure(usable))
        for content, fault in zip(rendered, faults, strict=True):
            size = fault or next(measured)
            if isinstance(size, str):
                yield size
                continue
            plain = {
                name: [{"role": m["role"], "content": m["content"]} for m in value]
                if isinstance(value, list)
                else value
                for name, value in content.items()
                if name != "tools"
            }
            asked = content.get("prompt") or _before_answer(content["messages"])
            yield Example(_key(_prompt_text(asked)), fields={**plain, "num_tokens": size}, size=size)

    def _find_fault(self, content: dict[str, Any]) -> str | None:
        """Say why a row can't be kept as messages, or None."""
        if "text" in content:
            return "a text, not a conversation: set apply_chat_template to train on it"
        if content.get("tools") or any(message.get("tool_calls") for message in _iterate_turns(content)):
            return "tool calls need the row format conversation with apply_chat_template"
        return None

    def _measure(self, contents: list[dict[str, Any]]) -> Iterator[int | str]:
        """Count the tokens of each row as its trainer will render it; or say why it teaches nothing."""
        prompts = [content["prompt"] for content in contents if "prompt" in content]
        wholes = []
        for content in contents:
            wholes += [content["prompt"] + content[name] for name in ("chosen", "rejected") if name in content]
            wholes += [content["messages"]] if "messages" in content else []
        of_prompts, of_wholes = iter(self._apply_template(prompts, prompt=True)), iter(self._apply_template(wholes))
        for content in contents:
            count = 2 if "chosen" in content else int("messages" in content)
            found = [*islice(of_wholes, count), *islice(of_prompts, int("prompt" in content))]
            refused = next((result for result in found if isinstance(result, str)), None)
            rows = [result.ids for result in found if not isinstance(result, str)]
            yield refused or self._judge_length(rows, "prompt" in content)

    def _judge_length(self, rows: list[list[int]], has_prompt: bool) -> int | str:
        """Return the longest of a row's renderings, of which the prompt's is the last; or why they teach nothing."""
        limit = self.config.max_length
        if has_prompt and len(rows[-1]) >= limit:
            return f"its prompt has {len(rows[-1])} tokens: max_length={limit} leaves no room for an answer"
        if len(rows) == 3:
            if rows[0] == rows[1]:
                return "chosen and rejected are the same as the chat template renders them"
            if rows[0][:limit] == rows[1][:limit]:
                return f"chosen and rejected are the same up to max_length={limit}"
        return max(map(len, rows))

    def _apply_template(
        self, chats: list[list[Message]], tools: list | None = None, prompt: bool = False
    ) -> list[EncodedChat | str]:
        """Render each conversation by the template, or say why it is refused."""
        if not chats:
            return []
        try:
            return [
                *encode_chats(
                    self.tokenizer,
                    chats,
                    tools=tools,
                    template=self.template,
                    add_generation_prompt=prompt,
                    with_answers=self.config.gives_tokens,
                )
            ]
        except ValueError as error:
            if len(chats) == 1:
                return [str(error)]
            return [self._apply_template([chat], tools, prompt)[0] for chat in chats]


def choose_template(tokenizer: PreTrainedTokenizerBase, with_answers: bool = True) -> str:
    """Return the tokenizer's chat template, or ours where it does not mark answers but has our special tokens.

    Args:
        tokenizer: of the model.
        with_answers: whether answers must be marked; without it, any template of the tokenizer does.

    Raises:
        ValueError: no template marks what the assistant says.
    """
    template = tokenizer.chat_template
    if template and (not with_answers or ("generation" in template and "endgeneration" in template)):
        return template
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in SPECIAL_TOKENS):
        logger.info("the tokenizer's chat template does not mark answers: using this project's, of the same form")
        return CHAT_TEMPLATE
    raise UserError(
        "processing_class: its chat template does not mark what the assistant says with {% generation %}, "
        "which a loss on the answers needs. Add the marks, or train a tokenizer with: small-doge tokenizer train"
    )


def row_schema(config: DataConfig) -> pa.Schema:
    """Return the columns of prepared rows."""
    if config.gives_tokens:
        columns = {"input_ids": _TOKENS, "seq_lengths": _TOKENS}
        if config.row_format == "conversation":
            columns["labels"] = _TOKENS
        if config.padding:
            columns["attention_mask"] = _TOKENS
    elif config.row_format == "preference":
        columns = {"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES, "num_tokens": pa.int32()}
    elif config.row_format == "problem":
        columns = {"prompt": _MESSAGES, "solution": pa.string(), "num_tokens": pa.int32()}
    elif config.row_format == "prompt":
        columns = {"prompt": _MESSAGES, "num_tokens": pa.int32()}
    else:
        columns = {"messages": _MESSAGES, "num_tokens": pa.int32()}
    return pa.schema({**columns, "source": pa.string()})


def _iterate_turns(content: dict[str, Any]) -> Iterator[Message]:
    return (message for value in content.values() if isinstance(value, list) for message in value)


def _before_answer(messages: list[Message]) -> list[Message]:
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return messages[:last] or messages


def _prompt_text(messages: list[Message]) -> str:
    turns = [m for m in messages if m["role"] != "system"] or messages
    return "\n".join(f"{m['role']}: {m['content'].strip()}" for m in turns)


def _key(text: str) -> int:
    return xxhash.xxh64_intdigest(text.encode("utf-8"))
