"""Conversations, kept in an SQLite file that several threads and processes may use at once."""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import ColumnElement, Select, Text, bindparam, delete, func, or_, select, text
from sqlalchemy.orm import Session

from .chat_forms import (
    Append,
    ChatChange,
    ChatForm,
    ChatSummary,
    ChatView,
    MessageChange,
    MessageForm,
    MessageView,
    chain_messages,
    check_tree,
    now,
    pick_current,
)
from .chat_tables import Chat, Message
from .database import Database
from .preset_forms import PresetForm, PresetView
from .preset_store import add_presets, list_presets


# Changes of these file a conversation elsewhere; they do not make it new.
FILING = {"title", "folder", "tags", "pinned", "archived", "current_id"}
TRIGRAM = 3


class MissingChatError(LookupError):
    """A conversation or message that is not there."""


class ExistingChatError(ValueError):
    """An id that another conversation or message has."""


def fold(content: str) -> str:
    """Write a text as it is searched: upper and lower case alike, accents composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", content).casefold()).replace("\0", "\ufffd")


class ChatStore:
    """Conversations in a file.

    What a method that changes something has returned from is on the disk: it outlives a kill and a power cut.

    Args:
        path: of the file, which is made if it is not there.

    Raises:
        UserError: the file is another program's, damaged, newer than this version, or can't be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.database = Database(path)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def list_chats(
        self,
        search: str = "",
        folder: str | None = None,
        tag: str | None = None,
        archived: bool | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[ChatSummary], int]:
        """Return a page of conversations, pinned ones first, then the newest, and how many there are in all.

        Args:
            search: words, each of which the title or a message has, in any case; parts of words count.
            folder: in which they are; "" for those in none.
            tag: that they have.
            archived: only those that are, or are not.
            limit: of the page.
            offset: how many stand before the page.
        """
        conditions = [self._contains(word) for word in dict.fromkeys(fold(search).split())]
        if folder is not None:
            conditions.append(Chat.folder == folder if folder else Chat.folder.is_(None))
        if tag is not None:
            tags = func.json_each(Chat.tags).table_valued("value")
            conditions.append(select(tags.c.value).where(tags.c.value == tag).exists())
        if archived is not None:
            conditions.append(Chat.archived.is_(archived))
        page = self._select_counted().where(*conditions).order_by(Chat.pinned.desc(), Chat.updated_at.desc(), Chat.id)
        with self.database.session() as session:
            total = session.scalar(select(func.count()).select_from(Chat).where(*conditions))
            rows = session.execute(page.limit(limit).offset(offset)).all()
            return [_summarise(chat, count) for chat, count in rows], total or 0

    def _select_counted(self) -> Select[tuple[Chat, int]]:
        count = select(func.count()).where(Message.chat_id == Chat.id).correlate(Chat).scalar_subquery()
        return select(Chat, count)

    def _contains(self, word: str) -> ColumnElement[bool]:
        """Tell whether the title or a message has a word; the index narrows down where to look, if the word is long."""
        said = select(Message.chat_id).where(func.instr(Message.folded, word) > 0)
        if self.database.indexed and len(word) >= TRIGRAM:
            quoted = '"' + word.replace('"', '""') + '"'
            hits = text("SELECT rowid FROM message_search WHERE message_search MATCH :quoted")
            said = said.where(
                Message.key.in_(hits.bindparams(bindparam("quoted", quoted, unique=True)).columns(rowid=Text))
            )
        return or_(func.instr(Chat.folded, word) > 0, Chat.id.in_(said))

    def create_chat(self, form: ChatForm) -> ChatView:
        """Keep a new conversation.

        Raises:
            ExistingChatError: there is one of this id.
            TreeError: its messages form no tree.
        """
        with self.database.write() as session:
            if session.get(Chat, form.id) is not None:
                raise ExistingChatError(f"there is a conversation {form.id!r} already; change it with PUT")
            return ChatView.model_validate(_add(session, form))

    def read_chat(self, chat_id: str) -> ChatView:
        """Return a conversation.

        Raises:
            MissingChatError: there is none of this id.
        """
        with self.database.session() as session:
            return ChatView.model_validate(_get(session, chat_id))

    def change_chat(self, chat_id: str, change: ChatChange) -> ChatView:
        """Change the fields that were sent; messages, if sent, replace those that are there.

        Raises:
            MissingChatError: there is none of this id.
            TreeError: the messages form no tree, or `current_id` is none of them.
        """
        with self.database.write() as session:
            chat, given = _get(session, chat_id), change.read_given()
            current = given.pop("current_id", None)
            if given.pop("messages", None) is not None:
                _replace_messages(session, chat, change.messages)
            ids = [message.id for message in chat.messages]
            kept = chat.current_id if chat.current_id in ids else None
            chat.current_id = pick_current(current or kept, ids)
            for name, value in given.items():
                setattr(chat, name, value)
            chat.folded = fold(chat.title)
            if change.model_fields_set - FILING:
                chat.updated_at = now()
            return ChatView.model_validate(chat)

    def append_messages(self, chat_id: str, added: Append) -> ChatView:
        """Add messages; one that is there already just so, as when a request is sent again, counts as added.

        Raises:
            MissingChatError: there is no conversation of this id.
            ExistingChatError: another message has the id of one.
            TreeError: they form no tree with those that are there.
        """
        with self.database.write() as session:
            chat = _get(session, chat_id)
            known = {message.id: message for message in chat.messages}
            chain_messages(added.messages, chat.current_id)
            news = [form for form in added.messages if not _is_same(known.get(form.id), form)]
            for form in news:
                if form.id in known:
                    raise ExistingChatError(f"conversation {chat_id!r} has another message {form.id!r}")
            check_tree({name: message.parent_id for name, message in known.items()}, news)
            chat.current_id = pick_current(
                added.current_id or added.messages[-1].id, [*known, *(form.id for form in news)]
            )
            position = chat.messages[-1].position + 1 if chat.messages else 0
            chat.messages.extend(_write_message(Message(), form, position + i) for i, form in enumerate(news))
            chat.updated_at = now()
            return ChatView.model_validate(chat)

    def change_message(self, chat_id: str, message_id: str, change: MessageChange) -> MessageView:
        """Change the fields of a message that were sent.

        Raises:
            MissingChatError: there is no such conversation, or no such message in it.
        """
        with self.database.write() as session:
            chat = _get(session, chat_id)
            message = session.scalar(select(Message).where(Message.chat_id == chat_id, Message.id == message_id))
            if message is None:
                raise MissingChatError(f"conversation {chat_id!r} has no message {message_id!r}")
            for name, value in change.read_given().items():
                setattr(message, name, value)
            message.folded = fold(message.content)
            chat.updated_at = now()
            return MessageView.model_validate(message)

    def delete_chat(self, chat_id: str) -> None:
        """Delete a conversation.

        Raises:
            MissingChatError: there is none of this id.
        """
        with self.database.write() as session:
            if session.scalar(delete(Chat).where(Chat.id == chat_id).returning(Chat.id)) is None:
                raise MissingChatError(f"there is no conversation {chat_id!r}")

    def import_chats(self, forms: list[ChatForm], presets: Iterable[PresetForm] = ()) -> tuple[int, list[str], int]:
        """Keep conversations and presets, all or none; those that are there stay as they are.

        Returns:
            How many conversations came, the ids of those that were there, and how many presets came.

        Raises:
            TreeError: the messages of one form no tree.
        """
        imported, skipped = 0, []
        with self.database.write() as session:
            for form in forms:
                if session.get(Chat, form.id) is not None:
                    skipped.append(form.id)
                    continue
                _add(session, form)
                imported += 1
            return imported, skipped, add_presets(session, presets)

    def iterate_export(self) -> Iterator[ChatView | PresetView]:
        """Yield all conversations, oldest first, and then all presets, as they are at the first one."""
        with self.database.session() as session:
            for chat_id in session.scalars(select(Chat.id).order_by(Chat.created_at, Chat.id)).all():
                yield ChatView.model_validate(_get(session, chat_id))
                session.expunge_all()
            yield from list_presets(session)


def _get(session: Session, chat_id: str) -> Chat:
    chat = session.get(Chat, chat_id)
    if chat is None:
        raise MissingChatError(f"there is no conversation {chat_id!r}")
    return chat


def _add(session: Session, form: ChatForm) -> Chat:
    fields = {name: getattr(form, name) for name in set(ChatForm.model_fields) - {"messages", "current_id"}}
    chat = Chat(**fields, folded=fold(form.title))
    session.add(chat)
    _replace_messages(session, chat, form.messages)
    chat.current_id = pick_current(form.current_id, [message.id for message in chat.messages])
    session.flush()
    return chat


def _replace_messages(session: Session, chat: Chat, forms: list[MessageForm]) -> None:
    """Make the messages those of the forms; rows that stay are changed where they differ."""
    chain_messages(forms, None)
    check_tree({}, forms)
    known = {message.id: message for message in chat.messages}
    chat.messages = [_write_message(known.get(form.id) or Message(), form, i) for i, form in enumerate(forms)]
    session.flush()


def _write_message(message: Message, form: MessageForm, position: int) -> Message:
    for name in MessageForm.model_fields:
        if name != "created_at" or name in form.model_fields_set or message.created_at is None:
            setattr(message, name, getattr(form, name))
    message.position, message.folded = position, fold(form.content)
    return message


def _is_same(message: Message | None, form: MessageForm) -> bool:
    names = ("parent_id", "role", "content", "model", "stats")
    return message is not None and all(getattr(message, name) == getattr(form, name) for name in names)


def _summarise(chat: Chat, count: int) -> ChatSummary:
    fields = {name: getattr(chat, name) for name in ChatSummary.model_fields if name != "num_messages"}
    return ChatSummary(**fields, num_messages=count)
