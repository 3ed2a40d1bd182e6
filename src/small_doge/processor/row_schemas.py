"""Rows of any usual form into the few forms that stages read.

| form | fields |
|---|---|
| text | `text` |
| conversation | `messages`; `conversations` or `conversation` (also ShareGPT's `from` and `value`), `system`, `tools` |
| prompt and answer | `prompt` with `completion` or `response`; `instruction`, `input`, `output` (Alpaca) |
| preference | `chosen` and `rejected`, `prompt` or the turns that both share |
| problem | `problem` or `question` with `solution`, `answer` or `final`; `rationale` or `thinking` beside it |
"""

import re
from collections.abc import Iterator
from typing import Any

from .messages import (
    Message,
    RowError,
    check_unicode,
    describe_type,
    find_first,
    is_blank,
    read_history,
    read_messages,
    read_text,
)


CONVERSATION_FIELDS = ("messages", "conversations", "conversation")
QUESTION_FIELDS = ("prompt", "problem", "question", "instruction")
ANSWER_FIELDS = ("completion", "response", "output")
# The shortest statement of the result first: it is what a verifier compares.
RESULT_FIELDS = ("final", "answer", "solution")
# The fullest first: it is what is learnt. Beside a thought, the result alone is the answer unless there is a solution.
LEARNT_FIELDS = ("solution", "answer", "final")
LEARNT_BESIDE_THOUGHT = ("solution", "final", "answer")
THOUGHT_FIELDS = ("thinking", "rationale", "reasoning_content", "reasoning")
PREFERENCE_FIELDS = ("chosen", "rejected")
SYSTEM_FIELDS = ("system", "system_prompt")
SCHEMA_FIELDS = (
    *CONVERSATION_FIELDS,
    *PREFERENCE_FIELDS,
    *QUESTION_FIELDS,
    *ANSWER_FIELDS,
    *RESULT_FIELDS,
    *THOUGHT_FIELDS,
)
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


def has_known_schema(row: dict[str, Any]) -> bool:
    """Tell whether a row is more than a text: a conversation, an answered prompt, a preference or a problem."""
    names = {name for name in SCHEMA_FIELDS if not is_blank(row.get(name))}
    asked = names & set(QUESTION_FIELDS) or ("instruction" in row and not is_blank(row.get("input")))
    answered = names & {*ANSWER_FIELDS, *RESULT_FIELDS, *THOUGHT_FIELDS}
    return bool(names & {*CONVERSATION_FIELDS, *PREFERENCE_FIELDS} or (asked and answered))


def describe_fields(row: dict[str, Any]) -> str:
    """Say by its fields why a row has no known schema."""
    blank = [name for name in SCHEMA_FIELDS if name in row and is_blank(row[name])]
    if blank:
        return f"{blank[0]} is {'null' if row[blank[0]] is None else 'empty'}"
    return f"its fields are {', '.join(sorted(map(str, row))) or 'none'}"


def is_preference(row: dict[str, Any]) -> bool:
    """Tell whether a row is meant as a preference: it has a chosen or a rejected answer."""
    return any(not is_blank(row.get(name)) for name in PREFERENCE_FIELDS)


def read_conversation(row: dict[str, Any]) -> list[Message]:
    """Read the conversation of a row of any schema; of a preference row, the prompt and the chosen answer.

    Raises:
        RowError: there is none, or it has no answer.
    """
    messages = _find_conversation(row)
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError("the conversation has no answer of the assistant")
    if any(map(_says_nothing, answers)):
        raise RowError("an answer of the assistant is empty")
    return messages


def _says_nothing(message: Message) -> bool:
    return not message["content"].strip() and not message.get("tool_calls") and not message.get("reasoning_content")


def _find_conversation(row: dict[str, Any]) -> list[Message]:
    field, turns = find_first(row, CONVERSATION_FIELDS)
    if field:
        messages = _put_behind(row, read_messages(turns, field))
        if messages[-1]["role"] == "assistant" or not is_preference(row):
            return messages
    if is_preference(row):
        preference = read_preference(row)
        return preference["prompt"] + preference["chosen"]
    _, thought = find_first(row, THOUGHT_FIELDS)
    _, answer = find_first(row, (*ANSWER_FIELDS, *(LEARNT_FIELDS if thought is None else LEARNT_BESIDE_THOUGHT)))
    question = _find_question(row)
    if question is None or (answer is None and thought is None):
        raise RowError(f"no conversation: {describe_fields(row)}")
    turns = _ask(row, question)
    if _holds_messages(answer):
        return turns + read_messages(answer, "completion")
    reply: Message = {"role": "assistant", "content": read_text(answer, "the answer") if answer is not None else ""}
    if thought is not None:
        reply["reasoning_content"] = read_text(thought, "the thought")
    return [*turns, reply]


def _holds_messages(value: Any) -> bool:
    """Tell whether a field holds messages, not a text, a number or the parts of a text."""
    first = value if isinstance(value, dict) else value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def _find_question(row: dict[str, Any], fields: tuple[str, ...] = QUESTION_FIELDS) -> Any:
    """Find what is asked; of a row of Alpaca's schema, the instruction with its input."""
    field, question = find_first(row, fields)
    given = row.get("input")
    if field in ("", "instruction") and not is_blank(given) and "instruction" in row:
        given = read_text(given, "input")
        return given if not field else f"{read_text(question, 'the prompt')}\n\n{given}"
    return question


def _ask(row: dict[str, Any], question: Any) -> list[Message]:
    """Return the turns up to a question, with the earlier ones and the system prompt that stand beside it."""
    if _holds_messages(question):
        turns = read_messages(question, "prompt")
    else:
        turns = [{"role": "user", "content": read_text(question, "the prompt")}]
    return _put_behind(row, turns)


def _put_behind(row: dict[str, Any], messages: list[Message]) -> list[Message]:
    """Put messages behind the system prompt and the earlier turns that stand beside them in the row."""
    lead, rest = _split_system(messages)
    messages = [*lead, *read_history(row.get("history")), *rest]
    field, system = find_first(row, SYSTEM_FIELDS)
    return _with_system(messages, read_text(system, field)) if field else messages


def _split_system(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    lead = messages[:1] if messages and messages[0]["role"] == "system" else []
    return lead, messages[len(lead) :]


def _with_system(messages: list[Message], text: str) -> list[Message]:
    """Put messages behind a system prompt; one of their own that says something else is kept too."""
    lead, rest = _split_system(messages)
    own = lead[0]["content"] if lead else ""
    if own:
        text = own if text.strip() in own else f"{text}\n\n{own}"
    return [{"role": "system", "content": text}, *rest]


def read_preference(row: dict[str, Any]) -> dict[str, list[Message]]:
    """Read `prompt`, `chosen` and `rejected` as messages; the answers hold turns of the assistant alone.

    Answers may repeat the conversation before them. Turns that both share and that go on from `prompt` belong to the
    prompt too.

    Raises:
        RowError: one is missing, nothing tells them apart, or they answer different prompts.
    """
    for field in PREFERENCE_FIELDS:
        if is_blank(row.get(field)):
            state = "null" if field in row and row[field] is None else "empty" if field in row else "missing"
            raise RowError(f"{field} is {state}: a preference needs a chosen and a rejected answer")
    chosen, rejected = (_read_answer(row[field], field) for field in PREFERENCE_FIELDS)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = _read_prompt_of_answers(row, chosen[:shared])
    chosen, rejected = chosen[shared:], rejected[shared:]
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if any(message["role"] != "assistant" for message in answer):
            raise RowError(
                f"{field} holds a turn of the {next(m['role'] for m in answer if m['role'] != 'assistant')} that the "
                "other answer does not share: both must answer one prompt, and only the assistant's turns are learnt"
            )
        if any(map(_says_nothing, answer)):
            raise RowError(f"{field} is empty")
    if chosen == rejected:
        raise RowError("chosen and rejected are the same")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _read_answer(value: Any, field: str) -> list[Message]:
    if _holds_messages(value) or isinstance(value, dict):
        return read_messages(value, field)
    return [{"role": "assistant", "content": read_text(value, field)}]


def _read_prompt_of_answers(row: dict[str, Any], shared: list[Message]) -> list[Message]:
    """Read the prompt of a preference, of which the answers may repeat all, a part or nothing."""
    question = _find_question(row)
    field, turns = find_first(row, CONVERSATION_FIELDS)
    if question is not None:
        prompt = _ask(row, question)
    elif field:
        prompt = _put_behind(row, read_messages(turns, field))
        prompt = prompt[:-1] if prompt[-1]["role"] == "assistant" else prompt  # an answer, not what is asked
    elif any(message["role"] == "user" for message in shared):
        return _put_behind(row, shared)
    else:
        raise RowError("no prompt, and the answers share no turn of the user")
    systems, asked = _split_system(prompt)
    lead, rest = _split_system(shared)
    said, repeated = _compare(asked), _compare(rest)
    length = len(said)
    if any(repeated[i : i + length] == said for i in range(len(repeated) - length + 1)):  # the whole conversation
        turns = rest
    elif not rest or said[-len(repeated) :] == repeated:  # its last turns
        turns = asked
    elif rest[0]["role"] != "assistant" and asked[-1]["role"] != "assistant":
        raise RowError("prompt is not what the answers share: it is unclear what they answer")
    else:
        turns = asked + rest
    for message in (*lead, *systems):
        turns = _with_system(turns, message["content"])
    return turns


def _compare(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def read_problem(row: dict[str, Any]) -> dict[str, Any]:
    """Read `prompt` as messages and the reference `solution`, for rewards that verify.

    Raises:
        RowError: no question or no reference answer.
    """
    question = _find_question(row, ("problem", "question", "prompt", "instruction"))
    _, result = find_first(row, RESULT_FIELDS)
    if question is None:
        raise RowError(f"no problem, question or prompt: {describe_fields(row)}")
    if result is None:
        raise RowError(f"no solution, answer or final to verify against: {describe_fields(row)}")
    return {"prompt": _ask(row, question), "solution": read_text(result, "the reference answer").strip()}


def read_prompt(row: dict[str, Any]) -> dict[str, list[Message]]:
    """Read `prompt` as messages: what comes before the last answer of a row of any known schema.

    Raises:
        RowError: nothing is asked.
    """
    if is_preference(row):
        return {"prompt": read_preference(row)["prompt"]}
    question = _find_question(row, ("problem", "question", "prompt", "instruction"))
    if question is not None:
        return {"prompt": _ask(row, question)}
    messages = read_conversation(row)
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    if last == 0:
        raise RowError("nothing is asked before the answer")
    return {"prompt": messages[:last]}


def find_texts(row: dict[str, Any], text_field: str | None = None) -> list[str]:
    """Find what can be read in a row: its text, or else what is said in its conversation.

    Raises:
        RowError: nothing.
    """
    name = text_field or "text"
    text = row.get(name)
    if isinstance(text, str) and not is_blank(text):
        return [check_unicode(text, name)]
    if text_field is None and has_known_schema(row):
        said = (m[part] for m in _find_conversation(row) for part in ("reasoning_content", "content") if m.get(part))
        return list(said)
    if name not in row:
        raise RowError(f"no field {name!r}")
    raise RowError(f"{name} is {'empty' if isinstance(text, str) else f'{describe_type(text)}, not text'}")


def iterate_texts(row: dict[str, Any], text_field: str | None = None) -> Iterator[str]:
    """Yield what `find_texts` finds, and nothing of a row that can't be read."""
    try:
        yield from find_texts(row, text_field)
    except RowError:
        return


def split_thought(message: Message) -> tuple[str | None, str]:
    """Split an answer into its thought, or None, and the rest.

    The thought is a field beside the content or is marked in it, in any of the ways of public traces.
    """
    thought, answer = message.get("reasoning_content"), message["content"]
    if thought is None:
        match = next((found for pattern in TRACES if (found := pattern.match(answer))), None)
        return (match["thought"].strip(), match["answer"].strip()) if match else (None, answer)
    return thought, answer


class AnsweredRow(dict):
    """A row of any known schema that also answers to `prompt`, `response` and `thinking`, for functions that format rows.

    Where a row lacks these fields, they are its first question, the answer to it without the thought, and the thought.
    """

    def __missing__(self, name: str) -> str:
        if name not in ("prompt", "response", "thinking"):
            raise KeyError(name)
        messages = read_conversation(self)
        asked = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages))
        answer = next((message for message in messages[asked:] if message["role"] == "assistant"), None)
        if answer is None:
            raise KeyError(name)
        thought, response = split_thought(answer)
        found = {"prompt": messages[asked]["content"], "response": response, "thinking": thought}[name]
        if found is None:
            raise KeyError(name)
        return found


def mark_thought(message: Message, tags: tuple[str, str]) -> Message:
    """Put the thought of an assistant's message between `tags`; without one, return it unchanged."""
    if message["role"] != "assistant":
        return message
    thought, answer = split_thought(message)
    if thought is None:
        return message
    content = f"{tags[0]}\n{thought.strip()}\n{tags[1]}\n\n{answer.strip()}".rstrip()
    return {**{k: v for k, v in message.items() if k != "reasoning_content"}, "content": content}


def drop_thought_field(message: Message) -> Message:
    """Put the thought beside a message before it, unmarked: the way a worked solution reads."""
    thought = message.get("reasoning_content")
    if thought is None:
        return message
    content = f"{thought.strip()}\n{message['content'].strip()}".strip()
    return {**{k: v for k, v in message.items() if k != "reasoning_content"}, "content": content}
