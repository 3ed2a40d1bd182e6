"""Makes the README's links whole for the page of a package index, which has none of the repository's files."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


REPOSITORY = "https://github.com/SmallDoges/small-doge"
FILES = f"{REPOSITORY}/blob/main/"
PICTURES = f"{REPOSITORY}/raw/main/"


def make_links_whole(text: str) -> str:
    """Return Markdown whose links and pictures lead to the repository."""
    relative = r"(?!https?://|#)"
    text = re.sub(rf"(!\[[^\]]*\]\(){relative}", rf"\1{PICTURES}", text)
    text = re.sub(rf"(\]\(){relative}", rf"\1{FILES}", text)
    return re.sub(rf"((?:src|srcset)=\"){relative}", rf"\1{PICTURES}", text)


class ReadmeHook(MetadataHookInterface):
    """Hands the README over with whole links."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the text that an index shows."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": make_links_whole(text)}
