"""What a conversation may hold: its fields, their limits, and the tree that its messages form."""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)


MAX_TITLE = 500
MAX_NAME = 300
MAX_PROMPT = 100_000
MAX_CONTENT = 1_000_000
MAX_MESSAGES = 10_000
MAX_DEPTH = 5_000
MAX_TAGS = 32
MAX_TAG = 64
MAX_OBJECT = 64_000
# Words of the addresses below /api/v1/chats.
RESERVED = {"export", "import"}
MOMENT = TypeAdapter(datetime)
Role = Literal["system", "user", "assistant", "tool"]
Item = TypeVar("Item")


class TreeError(ValueError):
    """Messages that do not form a tree.

    Args:
        message: says what is wrong.
        param: names the field that is.
    """

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


def new_id() -> str:
    """Make an id for a conversation or a message."""
    return str(uuid.uuid4())


def write_time(moment: datetime) -> str:
    """Write a time as text whose order is that of time: ISO 8601, UTC, microseconds."""
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("not a time between the years 1 and 9999") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def now() -> str:
    """Return the time."""
    return write_time(datetime.now(UTC))


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON, Unicode or the limit of size does not allow."""
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if size > MAX_OBJECT:
        raise ValueError(f"{size} bytes of JSON, more than {MAX_OBJECT}")
    return value


def check_id(value: str) -> str:
    """Refuse an id that can't stand in an address."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value) or value in RESERVED:
        raise ValueError(
            f"an id is 1 to 64 letters, digits, '-' and '_', and none of {sorted(RESERVED)}; a UUID is best"
        )
    return value


def drop_repeats(values: Iterable[Item]) -> list[Item]:
    """Keep the first of equal values."""
    return list(dict.fromkeys(values))


def text(limit: int, least: int = 0) -> Any:
    """Constrain a text in length; a constraint is also what makes pydantic refuse lone surrogates."""
    return StringConstraints(min_length=least, max_length=limit)


def none_means(default: Any) -> BeforeValidator:
    """Read null as a field's default."""
    return BeforeValidator(lambda value: default if value is None else value)


Id = Annotated[str, text(64), AfterValidator(check_id)]
Object = Annotated[dict[str, Any], AfterValidator(check_object)]
Time = Annotated[str, BeforeValidator(lambda value: write_time(MOMENT.validate_python(value)))]
Title = Annotated[str, text(MAX_TITLE), none_means("")]
Name = Annotated[str, text(MAX_NAME)]
Folder = Annotated[Name | None, AfterValidator(lambda value: value or None)]
Prompt = Annotated[str, text(MAX_PROMPT), none_means("")]
Content = Annotated[str, text(MAX_CONTENT), none_means("")]
Tags = Annotated[
    list[Annotated[str, text(MAX_TAG, 1)]], Field(max_length=MAX_TAGS), AfterValidator(drop_repeats), none_means([])
]
Flag = Annotated[bool, none_means(False)]
Settings = Annotated[Object, none_means({})]
FOLDER = AliasChoices("folder", "folder_id")
SETTINGS = AliasChoices("settings", "chat_settings")


class Form(BaseModel):
    """Fields that a client sends; those that are not known are kept aside, to be named in the answer."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    # What an export holds besides the fields, and an import does not miss.
    computed: ClassVar[tuple[str, ...]] = ("num_messages",)

    def list_ignored(self) -> list[str]:
        """Name the fields that are not known, those of messages as `messages.NAME`."""
        names = [name for name in self.model_extra or {} if name not in self.computed]
        for field in ("messages", "chats", "presets"):
            parts = getattr(self, field, None) or []
            names += [f"{field}.{name}" for part in parts for name in part.list_ignored()]
        return drop_repeats(names)

    def read_given(self) -> dict[str, Any]:
        """Return the known fields that were sent."""
        return {name: getattr(self, name) for name in self.model_fields_set & set(type(self).model_fields)}


class MessageForm(Form):
    """A message; without `parent_id` it follows the one before it."""

    id: Id = Field(default_factory=new_id)
    parent_id: Id | None = None
    role: Role
    content: Content
    model: Name | None = None
    created_at: Time = Field(default_factory=now)
    stats: Object | None = None


class MessageChange(Form):
    """Fields of a message that may change."""

    content: Content = ""
    model: Name | None = None
    stats: Object | None = None


Messages = Annotated[list[MessageForm], Field(max_length=MAX_MESSAGES)]


class Append(Form):
    """Messages to add to a conversation; the last of them is shown unless `current_id` names another."""

    messages: Annotated[Messages, Field(min_length=1)]
    current_id: Id | None = None


class ChatChange(Form):
    """Fields of a conversation that may change; `messages` replaces all of them."""

    title: Title = ""
    model: Name | None = None
    folder: Folder = Field(default=None, validation_alias=FOLDER)
    tags: Tags = []
    pinned: Flag = False
    archived: Flag = False
    system_prompt: Prompt = ""
    settings: Settings = Field(default={}, validation_alias=SETTINGS)
    messages: Messages = []
    current_id: Id | None = None


class ChatForm(ChatChange):
    """A whole conversation, to create or import."""

    id: Id = Field(default_factory=new_id)
    created_at: Time = Field(default_factory=now)
    updated_at: Time = Field(default_factory=now)


class View(BaseModel):
    """What is answered, read from rows of the database."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())


class MessageView(View):
    """A message."""

    id: str
    parent_id: str | None
    role: Role
    content: str
    model: str | None
    created_at: str
    stats: dict[str, Any] | None


class ChatSummary(View):
    """A conversation without its messages."""

    id: str
    title: str
    model: str | None
    folder: str | None
    tags: list[str]
    pinned: bool
    archived: bool
    created_at: str
    updated_at: str
    num_messages: int


class ChatView(ChatSummary):
    """A conversation."""

    system_prompt: str
    settings: dict[str, Any]
    messages: list[MessageView]
    current_id: str | None


def chain_messages(messages: Iterable[MessageForm], parent: str | None) -> None:
    """Give each message that names no parent the one before it; an explicit null makes it a root."""
    for message in messages:
        if "parent_id" not in message.model_fields_set:
            message.parent_id = parent
        parent = message.id


def check_tree(known: Mapping[str, str | None], messages: Iterable[MessageForm]) -> None:
    """Refuse messages that do not form trees together with those that are known.

    Args:
        known: id of each message that is there, and its parent's.
        messages: come to them.

    Raises:
        TreeError: two have the same id, a parent is missing, or they go in a circle, too deep, or are too many.
    """
    parents = dict(known)
    for message in messages:
        if message.id in parents:
            raise TreeError(f"two messages have the id {message.id!r}")
        parents[message.id] = message.parent_id
    if len(parents) > MAX_MESSAGES:
        raise TreeError(f"{len(parents)} messages, more than {MAX_MESSAGES}")
    depths: dict[str | None, int] = {None: 0}
    for start in parents:
        path: list[str] = []
        node: str | None = start
        seen: set[str] = set()
        while node not in depths:
            if node not in parents:
                raise TreeError(f"message {path[-1]!r} names the parent {node!r}, which is not there")
            if node in seen:
                raise TreeError(f"message {node!r} is its own ancestor")
            seen.add(node)
            path.append(node)
            node = parents[node]
        for depth, name in enumerate(reversed(path), start=depths[node] + 1):
            if depth > MAX_DEPTH:
                raise TreeError(f"message {name!r} has more than {MAX_DEPTH - 1} ancestors")
            depths[name] = depth


def pick_current(wanted: str | None, ids: list[str]) -> str | None:
    """Return the message to show: the one that is wanted, or else the last.

    Raises:
        TreeError: it is not there.
    """
    if wanted is None:
        return ids[-1] if ids else None
    if wanted not in ids:
        raise TreeError(f"current_id {wanted!r} is none of the messages", "current_id")
    return wanted
