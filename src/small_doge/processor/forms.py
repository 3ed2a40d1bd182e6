"""Rows of any usual form into the few forms that stages read.

| form | fields |
|---|---|
| text | `text` |
| conversation | `messages`; `conversations` or `conversation` (also ShareGPT's `from` and `value`), `system`, `tools` |
| prompt and answer | `prompt` with `completion` or `response`; `instruction`, `input`, `output` (Alpaca) |
| preference | `chosen` and `rejected`, `prompt` or the turns that both share |
| problem | `problem` or `question` with `solution`, `answer` or `final`; `rationale` or `thinking` beside it |
"""

import json
import re
from collections.abc import Iterator
from typing import Any


Message = dict[str, Any]

CONVERSATION_FIELDS = ("messages", "conversations", "conversation")
QUESTION_FIELDS = ("prompt", "problem", "question", "instruction")
ANSWER_FIELDS = ("completion", "response", "output")
# The shortest statement of the result first: it is what a verifier compares.
RESULT_FIELDS = ("final", "answer", "solution")
THOUGHT_FIELDS = ("thinking", "rationale", "reasoning_content", "reasoning")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "observation": "tool"}
# Marks of a thought and of the answer after it, as public traces write them.
TRACES = (
    re.compile(r"^\s*<think>(?P<thought>.*?)</think>(?P<answer>.*)$", re.S),
    re.compile(r"^\s*<thinking>(?P<thought>.*?)</thinking>(?P<answer>.*)$", re.S),
    re.compile(
        r"^\s*<\|begin_of_thought\|>(?P<thought>.*?)<\|end_of_thought\|>\s*"
        r"<\|begin_of_solution\|>(?P<answer>.*?)(?:<\|end_of_solution\|>\s*)?$",
        re.S,
    ),
)


class FormError(ValueError):
    """Why a row can't be read in the form that a stage needs."""


def has_known_form(row: dict[str, Any]) -> bool:
    """Whether a row is more than a text: a conversation, an answered prompt, a preference or a problem."""
    names = {name for name, value in row.items() if value is not None}
    answered = {*ANSWER_FIELDS, *RESULT_FIELDS, *THOUGHT_FIELDS}
    return bool(
        names & set(CONVERSATION_FIELDS)
        or {"chosen", "rejected"} <= names
        or (names & set(QUESTION_FIELDS) and names & answered)
    )


def read_messages(value: Any, field: str) -> list[Message]:
    """A list of {role, content} from messages in the usual spellings, or a JSON text of them.

    Raises:
        FormError: not messages.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise FormError(f"{field} is text, not messages") from None
    if not isinstance(value, list) or not value:
        raise FormError(f"{field} holds no messages")
    messages = []
    for turn in value:
        if not isinstance(turn, dict):
            raise FormError(f"{field}: a message is {type(turn).__name__}, not a role with its content")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if not isinstance(role, str):
            raise FormError(f"{field}: a message has no role")
        if not isinstance(content, str) and not turn.get("tool_calls"):
            raise FormError(f"{field}: the content of a message of the {role} is {type(content).__name__}, not text")
        message: Message = {"role": ROLES.get(role, role), "content": content or ""}
        extra = {k: turn[k] for k in ("tool_calls", "name", "reasoning_content") if turn.get(k)}
        messages.append({**message, **extra})
    return messages


def read_conversation(row: dict[str, Any]) -> list[Message]:
    """The conversation of a row of any form; of a preference row, the prompt and the chosen answer.

    Raises:
        FormError: there is none, or it has no answer.
    """
    messages = _find_conversation(row)
    if not any(message["role"] == "assistant" for message in messages):
        raise FormError("the conversation has no answer of the assistant")
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise FormError("an answer of the assistant is empty")
        if not _is_unicode(message["content"]):
            raise FormError("a message is not valid Unicode")
    return messages


def _find_conversation(row: dict[str, Any]) -> list[Message]:
    for field in CONVERSATION_FIELDS:
        if row.get(field) is not None:
            return _with_system(read_messages(row[field], field), row.get("system"))
    if row.get("chosen") is not None and row.get("rejected") is not None:
        preference = read_preference(row)
        return preference["prompt"] + preference["chosen"]
    question, answer = _find(row, QUESTION_FIELDS), _find(row, (*ANSWER_FIELDS, *RESULT_FIELDS))
    thought = _find(row, THOUGHT_FIELDS)
    if question is None or (answer is None and thought is None):
        raise FormError(f"no conversation: its fields are {', '.join(sorted(row)) or 'none'}")
    turns = _turns_of_question(row, question)
    if isinstance(answer, list):
        return turns + read_messages(answer, "completion")
    reply: Message = {"role": "assistant", "content": _text(answer, "the answer") if answer is not None else ""}
    if thought is not None:
        reply["reasoning_content"] = _text(thought, "the thought")
    return [*turns, reply]


def _turns_of_question(row: dict[str, Any], question: Any) -> list[Message]:
    if isinstance(question, list):
        return _with_system(read_messages(question, "prompt"), row.get("system"))
    text = _text(question, "the prompt")
    if row.get("instruction") is question and row.get("input"):
        text = f"{text}\n\n{_text(row['input'], 'input')}"
    history = []
    for old_question, old_answer in row.get("history") or []:
        history += [{"role": "user", "content": old_question}, {"role": "assistant", "content": old_answer}]
    return _with_system([*history, {"role": "user", "content": text}], row.get("system"))


def read_preference(row: dict[str, Any]) -> dict[str, list[Message]]:
    """`prompt`, `chosen` and `rejected` as messages.

    Raises:
        FormError: one is missing, or both answers are the same.
    """
    for field in ("chosen", "rejected"):
        if row.get(field) is None:
            raise FormError(f"no field {field!r}: this is not a preference")
    prompt = row.get("prompt") if row.get("prompt") is not None else row.get("question", row.get("instruction"))
    turns = _turns_of_question(row, prompt) if prompt is not None else None
    answers = {}
    for field in ("chosen", "rejected"):
        value = row[field]
        if isinstance(value, dict):
            value = [value]
        answers[field] = (
            [{"role": "assistant", "content": value}] if isinstance(value, str) else read_messages(value, field)
        )
    shared = 0
    chosen, rejected = answers["chosen"], answers["rejected"]
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if turns is None or shared:  # answers that repeat the prompt before them
        turns = chosen[:shared]
        chosen, rejected = chosen[shared:], rejected[shared:]
    if not turns:
        raise FormError("no prompt, and the answers share no turn")
    if chosen == rejected:
        raise FormError("chosen and rejected are the same")
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or any(not message["content"].strip() for message in answer):
            raise FormError(f"{field} is empty")
    return {"prompt": turns, "chosen": chosen, "rejected": rejected}


def read_problem(row: dict[str, Any]) -> dict[str, Any]:
    """`prompt` as messages and the reference `solution`, for rewards that verify.

    Raises:
        FormError: no question or no reference answer.
    """
    question = _find(row, ("problem", "question", "prompt", "instruction"))
    result = _find(row, RESULT_FIELDS)
    if question is None:
        raise FormError("no problem, question or prompt")
    if result is None:
        raise FormError("no solution, answer or final to verify against")
    return {"prompt": _turns_of_question(row, question), "solution": _text(result, "the reference answer").strip()}


def read_prompt(row: dict[str, Any]) -> dict[str, list[Message]]:
    """`prompt` as messages: what comes before the last answer of a row of any known form.

    Raises:
        FormError: nothing is asked.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return {"prompt": read_preference(row)["prompt"]}
    question = _find(row, ("problem", "question", "prompt", "instruction"))
    if question is not None:
        return {"prompt": _turns_of_question(row, question)}
    messages = read_conversation(row)
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
    if last == 0:
        raise FormError("nothing is asked before the answer")
    return {"prompt": messages[:last]}


def iterate_texts(row: dict[str, Any], text_field: str | None = None) -> Iterator[str]:
    """What can be read in a row: its text, or else the contents of its conversation."""
    text = row.get(text_field or "text")
    if isinstance(text, str):
        yield text
    elif text_field is None and has_known_form(row):
        try:
            yield from (message["content"] for message in _find_conversation(row))
        except FormError:
            return


def mark_thought(message: Message, tags: tuple[str, str]) -> Message:
    """An assistant's message with its thought between `tags`; without one, unchanged.

    The thought is a field beside the content or is marked in it, in any of the ways of public traces.
    """
    if message["role"] != "assistant":
        return message
    thought, answer = message.get("reasoning_content"), message["content"]
    if thought is None:
        match = next((found for pattern in TRACES if (found := pattern.match(answer))), None)
        if match is None:
            return message
        thought, answer = match["thought"], match["answer"]
    content = f"{tags[0]}\n{thought.strip()}\n{tags[1]}\n\n{answer.strip()}".rstrip()
    return {**{k: v for k, v in message.items() if k != "reasoning_content"}, "content": content}


def drop_thought_field(message: Message) -> Message:
    """A message whose thought beside the content stands before it, unmarked: the way a worked solution reads."""
    thought = message.get("reasoning_content")
    if thought is None:
        return message
    content = f"{thought.strip()}\n{message['content'].strip()}".strip()
    return {**{k: v for k, v in message.items() if k != "reasoning_content"}, "content": content}


def _with_system(messages: list[Message], system: Any) -> list[Message]:
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def _find(row: dict[str, Any], fields: tuple[str, ...]) -> Any:
    return next((row[name] for name in fields if row.get(name) is not None), None)


def _text(value: Any, what: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if not isinstance(value, str):
        raise FormError(f"{what} is {type(value).__name__}, not text")
    if not value.strip():
        raise FormError(f"{what} is empty")
    if not _is_unicode(value):
        raise FormError(f"{what} is not valid Unicode")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
