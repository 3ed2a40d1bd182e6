"""Presets, kept in the file of conversations."""

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from .chat_forms import now
from .chat_tables import Preset
from .database import Database
from .preset_forms import PresetChange, PresetForm, PresetView


class MissingPresetError(LookupError):
    """A preset that is not there."""


class PresetStore:
    """Presets in the file of conversations.

    Args:
        database: the open file.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def list_presets(self) -> list[PresetView]:
        """Return all presets by name."""
        with self.database.session() as session:
            return list_presets(session)

    def save_preset(self, name: str, change: PresetChange) -> tuple[PresetView, bool]:
        """Keep a preset, in the place of one of the same name; return it, and whether it is new."""
        with self.database.write() as session:
            is_new = session.get(Preset, name) is None
            form = PresetForm(name=name, **change.read_given())
            return PresetView.model_validate(session.merge(_to_row(form))), is_new

    def delete_preset(self, name: str) -> None:
        """Delete a preset.

        Raises:
            MissingPresetError: there is none of this name.
        """
        with self.database.write() as session:
            if session.scalar(delete(Preset).where(Preset.name == name).returning(Preset.name)) is None:
                raise MissingPresetError(f"there is no preset {name!r}")


def list_presets(session: Session) -> list[PresetView]:
    """Return all presets by name, within a transaction."""
    return [PresetView.model_validate(preset) for preset in session.scalars(select(Preset).order_by(Preset.name))]


def add_presets(session: Session, forms: Iterable[PresetForm]) -> int:
    """Keep presets within a transaction; those whose name is there stay as they are. Return how many came."""
    imported = 0
    for form in forms:
        if session.get(Preset, form.name) is None:
            session.add(_to_row(form))
            session.flush()
            imported += 1
    return imported


def _to_row(form: PresetForm) -> Preset:
    return Preset(name=form.name, system_prompt=form.system_prompt, sampling=form.sampling, updated_at=now())
