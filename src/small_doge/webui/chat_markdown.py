"""Conversations as Markdown, for people to read; nothing that a message holds can act as markup."""

import re

from .chat_forms import ChatView, MessageView


def write_markdown(chat: ChatView) -> str:
    """Write the branch of a conversation that is shown.

    What was said stands in fenced blocks, which no text inside can end: HTML and links in it stay text, whatever shows the file.
    """
    lines = [f"# {_escape(chat.title) or 'Untitled'}", ""]
    about = [name for name in (chat.model, chat.folder, *chat.tags) if name]
    lines += [_escape(" · ".join([*about, chat.created_at])), ""]
    if chat.system_prompt:
        lines += ["## System prompt", "", _fence(chat.system_prompt), ""]
    for message in _walk_branch(chat):
        lines += [f"## {message.role.capitalize()}", "", _fence(message.content), ""]
    return "\n".join(lines)


def _walk_branch(chat: ChatView) -> list[MessageView]:
    """Return the messages from the root to the one that is shown."""
    by_id = {message.id: message for message in chat.messages}
    branch: list[MessageView] = []
    node = chat.current_id
    while node is not None:
        branch.append(by_id[node])
        node = by_id[node].parent_id
    return branch[::-1]


def _escape(content: str) -> str:
    """Write a text in one line, without anything that Markdown or HTML could read as markup."""
    return (
        re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(content.split())).replace("\\<", "&lt;").replace("\\&", "&amp;")
    )


def _fence(content: str) -> str:
    """Put a text between fences that are longer than any in it."""
    longest = max(map(len, re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"
