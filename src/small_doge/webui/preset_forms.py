"""What a preset may hold: sampling options and a system prompt under a name."""

from typing import Annotated, Any

from pydantic import AfterValidator

from .chat_forms import Form, Name, Object, Prompt, View, none_means


def check_name(value: str) -> str:
    """Refuse a name that can't stand in an address."""
    if not value.isprintable() or value.strip() != value or value in ("", ".", ".."):
        raise ValueError("a preset's name is printable text without spaces at its ends, and neither '.' nor '..'")
    return value


PresetName = Annotated[Name, AfterValidator(check_name)]
Sampling = Annotated[Object, none_means({})]


class PresetChange(Form):
    """What a preset holds."""

    system_prompt: Prompt = ""
    sampling: Sampling = {}


class PresetForm(PresetChange):
    """A preset of an import."""

    computed = ("updated_at",)

    name: PresetName


class PresetView(View):
    """A preset."""

    name: str
    system_prompt: str
    sampling: dict[str, Any]
    updated_at: str
