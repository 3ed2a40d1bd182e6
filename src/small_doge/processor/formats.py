"""What each stage makes of a row: tokens with a loss mask, a preference, or a problem to verify."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ..utils.answers import parse_answer
from ..utils.logging import get_logger
from ..utils.suggest import unknown_name_message
from .cached_bpe import CachedTokenizer
from .chat_template import CHAT_TEMPLATE, SPECIAL_TOKENS
from .forms import (
    CONVERSATION_FIELDS,
    FormError,
    Message,
    drop_thought_field,
    has_known_form,
    mark_thought,
    read_conversation,
    read_preference,
    read_problem,
    read_prompt,
)


logger = get_logger(__name__)

STAGES = ("pt", "sft", "dpo", "grpo", "prompt")
# In place of a reason: the row is not for this stage.
SKIPPED = ""
IGNORED = -100
# Characters tokenised together: an encoding holds about 100 bytes a token while it is alive.
BATCH_CHARACTERS = 1_000_000
BATCH_ROWS = 256
DEFAULT_THINKING_TAGS = ("<think>", "</think>")

_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
_TOKENS = pa.list_(pa.int32())


@dataclass(frozen=True)
class Format:
    """How rows are rendered and tokenised.

    Args:
        stage: pt, sft, dpo, grpo, or prompt, for what is asked alone.
        max_length: tokens of a row.
        text_field: field with the text; `text` if None.
        formatting_func: makes of a row a text, {"text"}, {"messages"}, {"conversation"} or a row of a known form.
        apply_chat_template: pt: rows with an answered prompt become chat turns. sft: conversations are rendered and
            tokenised; without it they stay `messages`.
        apply_thinking_template: a teacher's thought goes between `thinking_tags`.
        thinking_tags: the two tags.
        system_prompt: put before conversations that have none.
        identity: what the model says when it is asked who it is; put before some conversations.
        identity_share: share of the conversations that begin with it.
    """

    stage: str = "pt"
    max_length: int = 2048
    text_field: str | None = None
    formatting_func: Callable[[dict], Any] | None = None
    apply_chat_template: bool = False
    apply_thinking_template: bool = False
    thinking_tags: tuple[str, str] = DEFAULT_THINKING_TAGS
    system_prompt: str | None = None
    identity: str | None = None
    identity_share: float = 0.05

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(unknown_name_message("stage", self.stage, STAGES))
        if self.max_length < 2:
            raise ValueError(f"max_length={self.max_length} must be at least 2")
        if not 0 < self.identity_share <= 1:
            raise ValueError(f"identity_share={self.identity_share} must lie in (0, 1]")
        tags = self.thinking_tags
        if isinstance(tags, str) or len(tags) != 2 or not all(isinstance(tag, str) and tag for tag in tags):
            raise ValueError(f"thinking_tags={tags!r} must be two texts, such as {list(DEFAULT_THINKING_TAGS)}")

    @property
    def gives_tokens(self) -> bool:
        """Whether rows are tokens, rather than messages that a trainer renders."""
        return self.stage == "pt" or (self.stage == "sft" and self.apply_chat_template)


@dataclass
class Example:
    """A row in its stage's format.

    Args:
        key: of what the model is asked, or of the whole text: examples with one key must not be in both splits.
        tokens: int32, for stages that give tokens.
        labels: tokens to learn, -100 elsewhere; None when all are learnt.
        fields: for stages that give messages.
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
        tokenizer: of the model.
        form: what to make of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: Format) -> None:
        self.tokenizer, self.form = tokenizer, form
        self.text_field = form.text_field or "text"
        self.template = choose_template(tokenizer) if form.stage != "pt" or form.apply_chat_template else None
        self._cached = CachedTokenizer(tokenizer.backend_tokenizer) if tokenizer.is_fast else None

    def encode(self, rows: list[dict[str, Any]]) -> list[Example | str]:
        """An example for each row, or the reason why it gives none, which is empty for rows of another stage."""
        rendered: list[Any] = [self._render(row) for row in rows]
        if self.form.stage in ("dpo", "grpo", "prompt") or (
            self.form.stage == "sft" and not self.form.apply_chat_template
        ):
            return [r if isinstance(r, str) else self._keep_messages(r) for r in rendered]
        results: list[Example | str] = [r if isinstance(r, str) else "" for r in rendered]
        texts = [i for i, r in enumerate(rendered) if isinstance(r, dict) and "text" in r]
        for i, tokens in zip(texts, self._tokenize([rendered[i]["text"] for i in texts]), strict=True):
            results[i] = Example(_key(rendered[i]["text"]), self._enclose(tokens), size=len(tokens) + 2)
        chats = [i for i, r in enumerate(rendered) if isinstance(r, dict) and "messages" in r]
        for i, result in zip(chats, self._encode_chats([rendered[i] for i in chats]), strict=True):
            results[i] = result
        return results

    def _render(self, row: dict[str, Any]) -> dict[str, Any] | str:
        """{"text"}, {"messages", "tools"} or a preference or problem; or why there is none."""
        try:
            if self.form.formatting_func is not None:
                row = self._apply_formatting_func(row)
            return self._read(row)
        except FormError as error:
            return str(error)

    def _apply_formatting_func(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            content = self.form.formatting_func(row)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise FormError(f"formatting_func: {type(error).__name__}: {error}") from error
        if isinstance(content, dict):
            return content
        if isinstance(content, list) and content and isinstance(content[0], dict):
            return {"messages": content}
        return {self.text_field: content}

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        form = self.form
        if form.stage == "dpo":
            if not is_preference(row):
                raise FormError(SKIPPED)
            preference = read_preference(row)
            return {name: self._prepare(turns, name == "prompt") for name, turns in preference.items()}
        if form.stage == "grpo":
            problem = read_problem(row)
            if not parse_answer(problem["solution"]):
                raise FormError("its reference answer states no number or formula that could be verified")
            return {**problem, "prompt": self._prepare(problem["prompt"], True)}
        if form.stage == "prompt":
            return {"prompt": self._prepare(read_prompt(row)["prompt"], True)}
        text = row.get(self.text_field)
        is_chat = has_known_form(row) and (form.stage == "sft" or text is None)
        if form.apply_chat_template and isinstance(text, str) and isinstance(row.get("prompt"), str) and not is_chat:
            row, is_chat = {"prompt": row["prompt"], "completion": text}, True  # cosmopedia-v2's form
        if not is_chat:
            return {"text": self._read_text(row)}
        if form.stage == "pt" and not form.apply_chat_template and not set(row) & set(CONVERSATION_FIELDS):
            return {"text": self._read_text(row)}
        return {"messages": self._prepare(read_conversation(row), True), "tools": _read_tools(row.get("tools"))}

    def _read_text(self, row: dict[str, Any]) -> str:
        name = self.text_field
        if name not in row:
            raise FormError(f"no field {name!r}")
        text = row[name]
        if not isinstance(text, str):
            raise FormError(f"{name} is {'null' if text is None else type(text).__name__ + ', not text'}")
        if not text.strip():
            raise FormError(f"{name} is empty")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise FormError(f"{name} is not valid Unicode") from None
        return text

    def _prepare(self, messages: list[Message], is_start: bool) -> list[Message]:
        """Thoughts in their place; before a conversation's start, the system prompt and the identity."""
        form = self.form
        if form.apply_thinking_template:
            messages = [mark_thought(message, form.thinking_tags) for message in messages]
        messages = [drop_thought_field(message) for message in messages]
        if not is_start:
            return messages
        system = messages[:1] if messages[0]["role"] == "system" else []
        rest = messages[len(system) :]
        if form.system_prompt and not system:
            system = [{"role": "system", "content": form.system_prompt}]
        if form.identity and _key(_prompt_text(rest)) % 10_000 < form.identity_share * 10_000:
            asked = {"role": "user", "content": "Who are you?"}
            rest = [asked, {"role": "assistant", "content": form.identity}, *rest]
        return system + rest

    def _keep_messages(self, rendered: dict[str, Any]) -> Example | str:
        """A row that its trainer renders: a preference, a problem or a conversation."""
        if "text" in rendered:
            return "a text, not a conversation: set apply_chat_template to train on it"
        turns = [m for value in rendered.values() if isinstance(value, list) for m in value if "role" in m]
        if any(m.get("tool_calls") for m in turns):
            return "tool calls need apply_chat_template with stage sft"
        lengths = {
            name: sum(map(len, self._tokenize([m["content"] for m in value])))
            for name, value in rendered.items()
            if isinstance(value, list) and value and "role" in value[0]
        }
        prompt = lengths.pop("prompt", 0)
        if prompt >= self.form.max_length:
            return f"its prompt has {prompt} tokens: max_length={self.form.max_length} leaves no room for an answer"
        size = prompt + max(lengths.values(), default=0)
        plain = {
            name: [{"role": m["role"], "content": m["content"]} for m in value] if isinstance(value, list) else value
            for name, value in rendered.items()
            if name != "tools"
        }
        asked = rendered.get("prompt") or _before_answer(rendered["messages"])
        return Example(_key(_prompt_text(asked)), fields={**plain, "num_tokens": size}, size=size)

    def _encode_chats(self, chats: list[dict[str, Any]]) -> Iterator[Example | str]:
        plain = [i for i, chat in enumerate(chats) if not chat["tools"]]
        encoded = dict(zip(plain, self._apply_template([chats[i]["messages"] for i in plain], None), strict=True))
        for i, chat in enumerate(chats):
            result = encoded[i] if i in encoded else self._apply_template([chat["messages"]], chat["tools"])[0]
            if isinstance(result, str):
                yield result
                continue
            tokens, mask = result
            yield self._learn(_key(_prompt_text(_before_answer(chat["messages"]))), tokens, mask)

    def _learn(self, key: int, tokens: np.ndarray, mask: np.ndarray) -> Example | str:
        if self.form.stage == "pt":
            return Example(key, self._enclose(tokens), size=len(tokens) + 2)
        if not mask.any():
            return "no token of an answer is marked by the chat template"
        labels = np.where(mask == 1, tokens, IGNORED).astype(np.int32)
        # The first token of a row has nothing before it that could predict it.
        if not (labels[1 : self.form.max_length] != IGNORED).any():
            return f"the answer begins after max_length={self.form.max_length} tokens and would be cut away"
        return Example(key, tokens[: self.form.max_length], labels[: self.form.max_length], size=len(tokens))

    def _apply_template(self, chats: list[list[Message]], tools: list | None) -> list[Any]:
        """(tokens, mask of the answers) for each conversation, or why the template refuses it."""
        if not chats:
            return []
        try:
            out = self.tokenizer.apply_chat_template(
                chats,
                tools=tools,
                chat_template=self.template,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"verbose": False, "return_attention_mask": False},
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            if len(chats) == 1:
                return [f"the chat template refuses it: {error}"]
            return [self._apply_template([chat], tools)[0] for chat in chats]
        return [
            (np.asarray(tokens, dtype=np.int32), np.asarray(mask, dtype=np.int8))
            for tokens, mask in zip(out["input_ids"], out["assistant_masks"], strict=True)
        ]

    def _tokenize(self, texts: list[str]) -> list[Any]:
        if not texts:
            return []
        if self._cached is not None:
            return self._cached.encode(texts)
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _enclose(self, tokens: Any) -> np.ndarray:
        """Between the begin and end tokens, unless they stand there already."""
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        head = [begin] if begin is not None and (len(tokens) == 0 or tokens[0] != begin) else []
        tail = [end] if end is not None and (len(tokens) == 0 or tokens[-1] != end) else []
        return np.concatenate([np.asarray(piece, dtype=np.int32) for piece in (head, tokens, tail)])


def choose_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template, or ours where it does not mark answers but has our special tokens.

    Raises:
        ValueError: no template marks what the assistant says.
    """
    template = tokenizer.chat_template
    if template and "generation" in template and "endgeneration" in template:
        return template
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in SPECIAL_TOKENS):
        logger.info("the tokenizer's chat template does not mark answers: using this project's, of the same form")
        return CHAT_TEMPLATE
    raise ValueError(
        "processing_class: its chat template does not mark what the assistant says with {% generation %}, "
        "which a loss on the answers needs. Add the marks, or train a tokenizer with: small-doge tokenizer train"
    )


def is_preference(row: dict[str, Any]) -> bool:
    """Whether a row has a chosen and a rejected answer."""
    return row.get("chosen") is not None and row.get("rejected") is not None


def row_schema(form: Format, padding: bool = False) -> pa.Schema:
    """The columns of prepared rows."""
    if form.gives_tokens:
        columns = {"input_ids": _TOKENS, "seq_lengths": _TOKENS}
        if form.stage == "sft":
            columns["labels"] = _TOKENS
        if padding:
            columns["attention_mask"] = _TOKENS
    elif form.stage == "dpo":
        columns = {"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES, "num_tokens": pa.int32()}
    elif form.stage == "grpo":
        columns = {"prompt": _MESSAGES, "solution": pa.string(), "num_tokens": pa.int32()}
    elif form.stage == "prompt":
        columns = {"prompt": _MESSAGES, "num_tokens": pa.int32()}
    else:
        columns = {"messages": _MESSAGES, "num_tokens": pa.int32()}
    return pa.schema({**columns, "source": pa.string()})


def _read_tools(value: Any) -> list | None:
    """Tool definitions, which a row may hold as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise FormError("tools is not valid JSON") from None
    if value is not None and not isinstance(value, list):
        raise FormError("tools must be a list of definitions")
    return value or None


def _before_answer(messages: list[Message]) -> list[Message]:
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return messages[:last] or messages


def _prompt_text(messages: list[Message]) -> str:
    turns = [m for m in messages if m["role"] != "system"] or messages
    return "\n".join(f"{m['role']}: {m['content'].strip()}" for m in turns)


def _key(text: str) -> int:
    return xxhash.xxh64_intdigest(text.encode("utf-8"))
