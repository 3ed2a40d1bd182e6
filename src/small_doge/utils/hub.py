"""Single files of the hub, and what its cache holds."""

from pathlib import Path


def find_hub_file(repository: str, name: str) -> Path | None:
    """Find a file of a model on the hub, fetched if need be; None if it has none, or if it is out of reach and not cached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name))
    except EntryNotFoundError:  # also what is neither cached nor in reach
        return None


def find_cached_folder(repository: str) -> Path | None:
    """Find the folder of a model in the hub's cache, without a download; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(repository, "config.json")
    except ValueError:  # a name that no model of the hub can have
        return None
    return Path(config).parent if isinstance(config, str) else None
