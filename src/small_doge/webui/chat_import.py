"""What an export of conversations and presets holds, as it is read again."""

from typing import Annotated, Final, Literal

from pydantic import Field

from .chat_forms import ChatForm, Form, Time
from .preset_forms import PresetForm


EXPORT_FORMAT: Final = "small-doge-chats"
EXPORT_VERSION = 1
MAX_CHATS = 10_000
MAX_PRESETS = 1_000


class Import(Form):
    """What an export wrote, or a list of conversations without its head."""

    format: Literal["small-doge-chats"] = EXPORT_FORMAT
    version: int = Field(default=EXPORT_VERSION, ge=1, le=EXPORT_VERSION)
    exported_at: Time | None = None
    chats: Annotated[list[ChatForm], Field(max_length=MAX_CHATS)]
    presets: Annotated[list[PresetForm], Field(max_length=MAX_PRESETS)] = []
