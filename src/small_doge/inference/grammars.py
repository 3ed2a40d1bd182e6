"""Grammars: which tokens may follow, so that an output has the form that a request asks for."""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from ..utils.errors import UserError
from ..utils.extras import needs_extra
from .detokenizer import Tokenizer
from .sampling_options import SamplingOptions


# What a grammar may cost. llguidance bounds the rest: together they keep compiling one below a second.
MAX_CHARACTERS = 65_536
MAX_LEXER_STATES = 20_000  # about 2 kB each
MAX_JOINED_PATTERNS = 12  # patterns that one text may have to match at once
MAX_MULTIPLE = 20_000  # the remainders that a number's digits are followed by
JOINING = re.compile(r'"allOf"|"\$ref"\s*:\s*"[^"]*"\s*,|,\s*"\$ref"')  # a reference with other conditions beside it
NUMBER_OF_MULTIPLE = re.compile(r'"multipleOf"\s*:\s*(-?[0-9][0-9.eE+-]*)')
# Where any white space is allowed, a small model may generate it for ever.
COMPACT: Any = {"whitespace_flexible": False}


class Grammars:
    """Compiles grammars and JSON schemas to matchers of token ids, for one tokenizer.

    Args:
        tokenizer: a fast one.
        vocab_size: V, the number of token ids.
        end_ids: token ids that end an output.

    Raises:
        UserError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> None:
        with needs_extra("an answer by json_schema or grammar", "export"):
            import llguidance.hf
        self.make = llguidance.LLMatcher
        self.limits = llguidance.LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
        self.tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(end_ids) or None)
        self.compile = lru_cache(4)(self._compile)  # one may take 40 MB

    def match(self, options: SamplingOptions) -> Any:
        """Make an `llguidance.LLMatcher` of the grammar or the JSON schema of some options, which have one of them.

        Raises:
            UserError: it is no such thing, uses what llguidance does not support, or is too large.
        """
        if options.grammar is not None:
            return self.compile("grammar", options.grammar).deep_copy()
        schema = options.json_schema
        return self.compile("json_schema", schema if isinstance(schema, str) else json.dumps(schema)).deep_copy()

    def _compile(self, option: str, text: str) -> Any:
        """Compile a grammar, or the text of a JSON schema."""
        problem = f"{option} is not a usable {'grammar' if option == 'grammar' else 'JSON schema'}"
        try:
            if option == "json_schema":
                schema = json.loads(text)
                schema = {} if schema is True else schema  # both mean any JSON; options need an object
                text = json.dumps(schema)  # without other spellings of the same names
            check_cost(option, text)
            compiled = text if option == "grammar" else self.make.grammar_from_json_schema(text, COMPACT)
            matcher = self.make(self.tokenizer, compiled, limits=self.limits)
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(f"{problem}: {show_error(str(error))}") from error
        if matcher.is_error():
            raise UserError(f"{problem}: {show_error(matcher.get_error())}")
        return matcher


def check_cost(option: str, text: str) -> None:
    """Refuse what llguidance would compile for seconds or hours, or with gigabytes of memory.

    Args:
        option: its name, for messages.
        text: a grammar, or a JSON schema as `json.dumps` writes it.

    Raises:
        UserError: it is too long, joins too many patterns, or asks for multiples of too large numbers.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{option} has {len(text)} characters; the limit is {MAX_CHARACTERS}. Make it smaller")
    num_patterns = text.count('"pattern"') + text.count('"format"')
    if num_patterns > MAX_JOINED_PATTERNS and JOINING.search(text):
        raise UserError(
            f"{option} has {num_patterns} patterns and formats, and allOf or a $ref with other conditions beside it, which "
            f"may join all of them; the limit is {MAX_JOINED_PATTERNS}. Leave some patterns out, or write the parts out"
        )
    steps = [_count_steps(number) for number in NUMBER_OF_MULTIPLE.findall(text)]
    if steps and math.lcm(*steps) * len(steps) > MAX_MULTIPLE:
        raise UserError(
            f"{option} asks for multiples of {', '.join(NUMBER_OF_MULTIPLE.findall(text)[:5])}; numbers whose least common "
            f"multiple is above {MAX_MULTIPLE} are too much to check. Leave multipleOf out"
        )


def _count_steps(number: str) -> int:
    """Return the digits of a number as an integer: 0.25 as 25, and 1e3 as 1000; of very large ones, a large integer."""
    try:
        _, digits, exponent = Decimal(number).as_tuple()
    except ArithmeticError:
        return MAX_MULTIPLE + 1
    size = int("".join(map(str, digits)) or "0")
    exponent = exponent if isinstance(exponent, int) else 0
    if exponent > 9:
        return MAX_MULTIPLE + 1
    return max(1, size * 10 ** max(exponent, 0))


def show_error(message: str) -> str:
    """Cut a message of llguidance, which may repeat the whole grammar, to its beginning."""
    first = message.strip().split("\n", 1)[0].removesuffix("<non-verbose/>").strip()
    return first if len(first) <= 300 else first[:297] + "..."
