"""The one configuration of training data, which recipes, `small-doge data`, Python and the trainers share."""

# ruff: noqa: RUF009 (`_setting` returns a field)

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..utils.errors import UserError
from ..utils.suggest import unknown_name_message


ROW_FORMATS = ("text", "conversation", "preference", "problem", "prompt")
PACKINGS = ("best_fit", "wrapped", "none")
DEFAULT_THINKING_TAGS = ("<think>", "</think>")


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    """Declare a field with its help text, which is that of recipes, commands and documents.

    Args:
        default: value, or a list, which is copied.
        help: what the setting does.
        metadata: `recipe=False` for what no recipe can name; `option`, the name of the command's option.
    """
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help, **metadata})
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class DataConfig:
    """Which data sets, and how they become rows.

    Settings that are None by default depend on the row format and are resolved when the object is made: texts are packed
    and keep no chat template; all other rows are not packed and are rendered with it.
    """

    datasets_and_ratios: list[dict[str, float]] | None = _setting(
        None, "Data sets and their shares, a list of one-key entries; the shares sum to 1."
    )
    row_format: str = _setting(
        "text", "What rows are made of: text, conversation, preference, problem or prompt.", recipe=False
    )
    total_sample_size: int = _setting(
        -1, "Number of training rows after packing; -1 takes every row of every data set once.", option="--rows"
    )
    test_size: int = _setting(0, "Number of rows held out for evaluation.")
    dataset_text_field: str | None = _setting(
        None, "Field that holds the text; `text` if not set.", option="--text-field"
    )
    formatting_func: Callable[[dict], Any] | None = _setting(
        None, "Function that makes a text, messages or a row of a known form of each row.", recipe=False
    )
    max_length: int = _setting(2048, "Maximum number of tokens in a row.")
    packing: bool | str | None = _setting(
        None,
        "How documents share rows: best_fit (or true) puts several whole documents into a row, none of which reads "
        "another; wrapped cuts documents where a row is full; none (or false) gives each a row of its own. By default "
        "texts are packed by best_fit and conversations are not packed.",
    )
    padding: bool = _setting(False, "Pad rows to max_length and add an attention mask.", recipe=False)
    streaming: bool = _setting(
        False, "Read, tokenise and pack rows while training, in flat memory, without keeping them on disk."
    )
    apply_chat_template: bool | None = _setting(
        None,
        "Render rows that have an answered prompt with the chat template. Off by default for texts; always on for the "
        "other rows that a trainer takes.",
        option="--chat-turns/--no-chat-turns",
    )
    apply_thinking_template: bool = _setting(
        False, "Put a teacher's thought between thinking_tags, before the answer."
    )
    thinking_tags: list[str] = _setting(list(DEFAULT_THINKING_TAGS), "The two tags around a thought.")
    system_prompt: str | None = _setting(None, "System prompt for conversations that have none.")
    identity: str | None = _setting(
        None, "What the model says when it is asked who it is; put before some conversations."
    )
    identity_share: float = _setting(0.05, "Share of the conversations that begin with the identity.")
    seed: int = _setting(233, "Seed of every shuffle.")
    max_bad_rows: int = _setting(
        1000, "Number of unusable rows that a data set may have; they are listed in a separate file."
    )
    max_bad_share: float = _setting(0.1, "Share of unusable rows that a data set of 100 rows or more may have.")
    dataset_num_proc: int | None = _setting(
        None, "Number of processes that read and tokenise; all cores if not set.", option="--num-proc"
    )
    cache_dir: str | None = _setting(
        None, "Folder that keeps prepared rows; a run uses a folder in its output_dir if not set."
    )

    def __post_init__(self) -> None:
        if self.row_format not in ROW_FORMATS:
            raise UserError(unknown_name_message("row format", self.row_format, ROW_FORMATS))
        is_text = self.row_format == "text"
        if self.apply_chat_template is None:
            self.apply_chat_template = not is_text
        self.packing = choose_packing(is_text if self.packing is None else self.packing)
        if not self.gives_tokens:
            self.packing = "none"
        self._check()
        if self.datasets_and_ratios is not None:
            read_shares(self.datasets_and_ratios)

    def _check(self) -> None:
        if self.max_length is None or self.max_length < 2:
            raise UserError(f"max_length={self.max_length} must be at least 2")
        if self.total_sample_size != -1 and self.total_sample_size < 1:
            raise UserError(f"total_sample_size={self.total_sample_size} must be positive, or -1 for all")
        if self.test_size < 0:
            raise UserError(f"test_size={self.test_size} must not be negative")
        if self.max_bad_rows < 0 or not 0 <= self.max_bad_share <= 1:
            raise UserError(
                f"max_bad_rows={self.max_bad_rows} must not be negative, max_bad_share={self.max_bad_share} must lie "
                "in [0, 1]"
            )
        if not 0 < self.identity_share <= 1:
            raise UserError(f"identity_share={self.identity_share} must lie in (0, 1]")
        tags = self.thinking_tags
        if isinstance(tags, str) or len(tags) != 2 or not all(isinstance(tag, str) and tag for tag in tags):
            raise UserError(
                f"thinking_tags={tags!r} must be two texts, such as {list(DEFAULT_THINKING_TAGS)}, or "
                f"{','.join(DEFAULT_THINKING_TAGS)} on the command line"
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Make a configuration of settings by name.

        Raises:
            ValueError: an unknown setting, with the near miss named, or one that does not fit.
        """
        known = [field.name for field in fields(cls)]
        if "stage" in settings:
            raise UserError(
                "stage: say row_format, which is conversation for sft and distill, preference for dpo, problem for grpo"
            )
        for name in settings:
            if name not in known:
                raise UserError(unknown_name_message("setting of the data", name, known))
        return cls(**settings)

    @property
    def gives_tokens(self) -> bool:
        """Whether rows are tokens, rather than messages that a trainer renders."""
        return self.row_format == "text" or (self.row_format == "conversation" and bool(self.apply_chat_template))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return read_shares(self.datasets_and_ratios or [])[0]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Shares of the data sets, which sum to 1."""
        return read_shares(self.datasets_and_ratios or [])[1]


def choose_packing(packing: bool | str) -> str:
    """Return `best_fit`, `wrapped` or `none`; True stands for the first and False for the last.

    Raises:
        ValueError: another word.
    """
    word = str(packing).lower()  # a command line gives true and false as words
    if word in ("true", "false"):
        return "best_fit" if word == "true" else "none"
    if packing not in PACKINGS:
        raise UserError(unknown_name_message("packing", str(packing), PACKINGS))
    return packing


def read_shares(datasets_and_ratios: list[dict[str, float]]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Split one-key entries into names and ratios.

    Raises:
        ValueError: an entry of another form, a ratio out of range, a name twice, or ratios that don't sum to 1.
    """
    names, ratios = [], []
    for entry in datasets_and_ratios:
        if not isinstance(entry, dict) or len(entry) != 1:
            raise UserError(f"datasets_and_ratios: each entry is a dict of one name and its ratio, got {entry!r}")
        ((name, ratio),) = entry.items()
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise UserError(f"datasets_and_ratios: the ratio of {name!r} is {ratio!r}; it must lie in (0, 1]")
        if name in names:
            raise UserError(f"datasets_and_ratios: {name!r} is named twice; add up its ratios")
        names.append(name)
        ratios.append(float(ratio))
    if not names:
        raise UserError("datasets_and_ratios is empty: name at least one data set")
    if abs(math.fsum(ratios) - 1.0) > 1e-6:
        raise UserError(f"datasets_and_ratios: the ratios sum to {math.fsum(ratios):g}, not 1")
    return tuple(names), tuple(ratios)
