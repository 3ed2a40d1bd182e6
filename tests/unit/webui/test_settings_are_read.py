"""No setting of the server is for show."""

import re
from dataclasses import fields
from pathlib import Path

import small_doge.webui
from small_doge.webui.settings import ServeSettings


def test_every_setting_is_read_by_something():
    folder = Path(small_doge.webui.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py") if path.name != "settings.py"]
    unread = [
        field.name
        for field in fields(ServeSettings)
        if not any(re.search(rf"\b(settings|checked)\.{field.name}\b", source) for source in sources)
    ]
    # The host's other uses, and what a default is, are asked of the settings themselves.
    assert set(unread) <= {"no_api_key"}
