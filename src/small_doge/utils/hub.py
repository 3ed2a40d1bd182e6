"""Single files of the hub."""

from pathlib import Path


def find_hub_file(repository: str, name: str) -> Path | None:
    """Find a file of a model on the hub, fetched if need be; None if it has none, or if it is out of reach and not cached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name))
    except EntryNotFoundError:  # also what is neither cached nor in reach
        return None
