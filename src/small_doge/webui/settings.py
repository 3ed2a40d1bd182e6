"""Settings of the server. The help of each field is also the command line's."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ..inference.sampling_options import SamplingOptions
from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


LIMITS, ACCESS = "Limits", "Access"  # parts of the command's help
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Sampling options that are no defaults of a server, with what to do instead.
NO_DEFAULTS = {
    "max_new_tokens": "set default_max_tokens, beside sampling",
    **dict.fromkeys(
        ("logprobs", "prompt_logprobs", "json_schema", "grammar"), "leave it out, and send it with each request"
    ),
}
# Environment names of the guides' server besides ours, with the setting that each one gives.
ENVIRONMENT = {
    "SMALLDOGE_HOST": "host",
    "SMALLDOGE_PORT": "port",
    "SMALLDOGE_MODEL": "models",
    "SMALLDOGE_API_KEY": "api_key",
    "MODEL_CACHE_DIR": "models_dir",
    "MAX_TOKENS": "max_output_tokens",
    "DATABASE_URL": "chats",
}


def _option(
    help: str,
    default: Any,
    minimum: float | None = None,
    note: str = "",
    option: str | None = None,
    panel: str | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a setting: what it does, its default, the limits of its number, what help says where it has no default."""
    metadata = {"help": help, "min": minimum, "max": maximum, "note": note, "panel": panel}
    if option is not None:
        metadata["option"] = option
    return field(default=default, metadata=metadata)


@dataclass
class ServeSettings:
    """What the server serves, to whom, and within which limits.

    Raises:
        UserError: settings that do not go together, with the remedy.
    """

    host: str = _option("Address to listen on.", "127.0.0.1")
    port: int = _option("Port to listen on; 0 takes a free one.", 8000, 0, maximum=65535)
    models: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Models to serve, the first by default: folders or names on the hub, `NAME=FOLDER` to choose a name.",
            "note": "All stages of the demo, the newest first, if not set.",
        },
    )
    models_dir: str | None = _option(
        "Folder with further exported models and checkpoints to offer, which are loaded on demand.", None
    )
    quantize: str = _option("Weight format for exporting checkpoints: none (float32), int8 or int4.", "none")
    memory_budget: float | None = _option(
        "GiB of memory for loaded models. When they need more, the one used least recently is unloaded.",
        None,
        0,
        "Half of the memory that is free at the start if not set.",
        panel=LIMITS,
    )
    num_slots: int = _option("Number of requests that a model computes at the same time.", 8, 1, panel=LIMITS)
    threads: int | None = _option(
        "Number of processor threads for a model.", None, 1, "Chosen by a quick measurement if not set.", panel=LIMITS
    )
    max_queue: int = _option(
        "Number of requests that may wait for a slot; further ones get the status 429.", 64, 0, panel=LIMITS
    )
    max_prompt_tokens: int | None = _option(
        "Largest number of tokens in a prompt.", None, 1, "What the model takes if not set.", panel=LIMITS
    )
    max_output_tokens: int = _option("Largest number of tokens that a request may ask for.", 16384, 1, panel=LIMITS)
    default_max_tokens: int = _option("Number of tokens if a request does not set max_tokens.", 1024, 1, panel=LIMITS)
    max_choices: int = _option("Largest number of answers to one request (n).", 16, 1, panel=LIMITS)
    request_timeout: float = _option(
        "Time limit of a request in seconds, including waiting.", 600.0, 0.001, panel=LIMITS
    )
    max_body_mib: float = _option("Largest request body in MiB.", 8.0, 0.001, panel=LIMITS)
    max_connections: int = _option("Number of connections that may be open at the same time.", 1024, 1, panel=LIMITS)
    api_key: str | None = _option(
        "Key that clients must send, as Authorization: Bearer KEY. The environment variable SMALLDOGE_API_KEY keeps it "
        "out of the list of processes.",
        None,
        panel=ACCESS,
    )
    no_api_key: bool = _option(
        "Allow everyone: listen on other addresses than 127.0.0.1 without a key.",
        False,
        option="--no-api-key",
        panel=ACCESS,
    )
    allowed_hosts: list[str] = field(
        default_factory=list,
        metadata={
            "panel": ACCESS,
            "help": "Further host names under which the server may be reached, such as that of a proxy; * allows all.",
        },
    )
    cors_origins: list[str] = field(
        default_factory=list,
        metadata={
            "panel": ACCESS,
            "help": "Origins whose pages may use the API, such as https://example.org or http://127.0.0.1:7860; * allows all.",
        },
    )
    chats: str | None = _option("SQLite file for conversations.", None, note="In the user's data folder if not set.")
    no_page: bool = _option("Serve the API without the page.", False, option="--backend-only")
    page_only: bool = _option("Serve only the page, for an API on another server.", False, option="--frontend-only")
    backend: str | None = _option(
        "Address of the API for --frontend-only, as browsers reach it, such as http://127.0.0.1:8000; the API needs "
        "--cors-origins with the address of the page.",
        None,
    )
    log_prompts: bool = _option(
        "Write prompts and answers to the log, which otherwise contains no text from users.", False, panel=ACCESS
    )
    debug: bool = _option("Log every request, and tracebacks.", False, option="--debug")
    engine: str = _option(
        "What runs the server: local for this process, ray for replicas with Ray Serve (pip install 'small-doge[scale]').",
        "local",
    )
    replicas: int = _option("Number of server processes with --engine ray.", 2, 1)
    sampling: SamplingOptions = field(
        default_factory=SamplingOptions, metadata={"help": "Sampling options where a request does not name them."}
    )

    def __post_init__(self) -> None:
        is_open = self.no_api_key or self.page_only  # the page alone computes and keeps nothing
        if self.host not in LOOPBACK and not self.api_key and not is_open:
            raise UserError(
                f"host={self.host} lets other machines in: set a key with --api-key or SMALLDOGE_API_KEY, or add "
                "--no-api-key if everyone who reaches this address may use the server"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise UserError("api_key must be printable ASCII characters, and at least one")
        if self.api_key != (self.api_key and self.api_key.strip()):
            raise UserError("api_key begins or ends with a space, which clients do not send; leave it out")
        for setting in fields(self):
            _check_number(setting.name, getattr(self, setting.name), setting.name)
        if self.quantize not in ("none", "int8", "int4"):
            raise UserError(f"quantize={self.quantize!r} must be one of: none, int8, int4")
        if self.engine not in ("local", "ray"):
            raise UserError(f"engine={self.engine!r} must be one of: local, ray")
        if self.no_page and self.page_only:
            raise UserError(
                "--backend-only and --frontend-only exclude each other; leave both out for one server of both"
            )
        _check_backend(self.backend, self.page_only)
        for origin in self.cors_origins:
            _check_origin(origin)

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine can reach the server."""
        return self.host in LOOPBACK


def make_address(host: str, port: int) -> str:
    """Write an address for a browser, for which the address of all interfaces is none."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def read_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read the settings that environment variables give."""
    settings = {}
    for name, setting in ENVIRONMENT.items():
        if environment.get(name):
            settings[setting] = _convert(setting, environment[name], f"the environment variable {name}")
            _check_number(setting, settings[setting], f"the environment variable {name}")
    return settings


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Read settings from a YAML file.

    Raises:
        UserError: it can't be read, or holds unknown settings or values of the wrong kind.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold settings, one a line, such as `port: 8000`")
    known = [f.name for f in fields(ServeSettings)]
    settings = {}
    for name, value in content.items():
        name = str(name).replace("-", "_")
        if name == "model":
            name = "models"
        if name not in known:
            raise UserError(f"--config {path}: {unknown_name_message('setting', name, known, limit=len(known))}")
        settings[name] = _convert(name, value, f"--config {path}: {name}")
        _check_number(name, settings[name], f"--config {path}: {name}")
    return settings


def _check_backend(backend: str | None, page_only: bool) -> None:
    """Check the address of the server that a page of its own asks.

    Raises:
        UserError: it is no address, or there is no such page, or none is named.
    """
    if page_only != bool(backend):
        raise UserError(
            "the page alone (--frontend-only) needs the address of a server: --backend http://127.0.0.1:8000"
            if page_only
            else f"backend={backend} is the server that the page alone asks: add --frontend-only, or leave it out"
        )
    if backend and not re.fullmatch(
        r"https?://[\w.\-]+(:\d+)?(/[\w.\-/]*)?|https?://\[[\da-f:]+\](:\d+)?/?", backend, re.I | re.A
    ):
        raise UserError(f"backend={backend!r} must be the address of a server, such as http://127.0.0.1:8000")


def _check_origin(origin: str) -> None:
    """Check an origin, which browsers send without a path.

    Raises:
        UserError: no page can have it.
    """
    if origin in ("*", "null") or re.fullmatch(r"[a-z][a-z\d+.\-]*://[^/\s,A-Z]+", origin):
        return
    raise UserError(
        f"cors_origins has {origin!r}, which is no origin: name scheme, host and port in lower case, and no path, such as "
        "http://127.0.0.1:7860"
    )


def _check_number(name: str, value: Any, where: str) -> None:
    """Check a number against the limits of its setting.

    Raises:
        UserError: it lies outside, or is not a number.
    """
    metadata = next(f.metadata for f in fields(ServeSettings) if f.name == name)
    low, high = metadata.get("min"), metadata.get("max")
    if low is None or value is None:
        return
    if not low <= value <= (math.inf if high is None else high) or value == math.inf:
        limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise UserError(f"{where}={value} must be {limits}")


def _check_defaults(options: Mapping[str, Any], where: str) -> None:
    """Check that sampling options can be those of requests that do not name them.

    Raises:
        UserError: one belongs to single requests.
    """
    for name, remedy in NO_DEFAULTS.items():
        if name in options:
            raise UserError(f"{where}: {name}={options[name]!r:.80} can't be a default of the server; {remedy}")


def _convert(name: str, value: Any, where: str) -> Any:
    """Convert a value of a file or the environment to the type of its setting."""
    if name == "sampling":
        if not isinstance(value, dict):
            raise UserError(f"{where} must hold sampling options, such as `temperature: 0.7`")
        _check_defaults(value, where)
        try:
            return SamplingOptions.from_names(value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    kind = str(next(f.type for f in fields(ServeSettings) if f.name == name))
    if "tuple" in kind or "list" in kind:
        items = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UserError(f"{where}={value!r} must be a list of texts, in quotes where they look like numbers")
        return tuple(items) if "tuple" in kind else items
    if "bool" in kind:
        if not isinstance(value, bool):
            raise UserError(f"{where}={value!r} must be true or false")
        return value
    for type_name, make in (("int", int), ("float", float)):
        if type_name in kind:
            try:
                number = make(value)
            except (TypeError, ValueError):
                number = None
            if number is None or isinstance(value, bool) or (make is int and isinstance(value, float)):
                raise UserError(f"{where}={value!r} must be a {'whole ' if make is int else ''}number")
            return number
    if not isinstance(value, str):
        raise UserError(f"{where}={value!r} must be a text; write it in quotes")
    if name == "chats":
        return value.removeprefix("sqlite:///")
    return value
