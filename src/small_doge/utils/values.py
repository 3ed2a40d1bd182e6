r"""Values written in the ways of people and of LaTeX: numbers, lists, intervals and formulas, each read as a whole.

What is decided about the forms:

- Numbers: commas part thousands where they stand as in 1,234; else they part a list: 1,2,3. A point is decimal. 1e5,
  1/2, 1 1/2, `\frac12` and `\dfrac{1}{2}` are read, and compared exactly: 0.333 is not 1/3.
- A list in parentheses or square brackets has an order; one in braces, or two without brackets, has none. (3,4) may also be
  an interval: brackets must be the same.
- Of an equation, the right side counts where the left is a name or worked out: x = 5, 2 + 3 = 5. Others are formulas.
- Arithmetic that is left to do (2 + 3) has a value, but is not equal to the number: who repeats a question has not answered
  it. Powers of ten (3 * 10^5) and fractions are numbers.
- Units that are known must not differ (5 km is not 5 m); a unit may be left out, other words behind a number ("12 apples")
  and currency signs too. 50% is 50% or 1/2, and the sign may be left out: so is 50.
- Times and ratios (3:30), numbers side by side (1 2), ranges, single letters and words have no value.
"""

import re
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .units import NO_UNITS, SCALES, UNITS


# Seconds that comparing two formulas may take.
TIMEOUT = 3
MAX_CHARACTERS = 400
MAX_EXPONENT = 400

NUMBER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_SIGN = r"(?P<sign>[+-]?)\s*"
_CURRENCY = r"(?P<currency>(?:US)?\$|[€£¥₹]|(?:USD|EUR|GBP|RMB|CNY)(?![A-Za-z]))?\s*"
_QUANTITY = re.compile(
    rf"{_SIGN}{_CURRENCY}(?P<sign2>[+-]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>{NUMBER})(?:\s*/\s*(?P<bottom>{NUMBER}))?"
    r"\s*(?P<behind>%|[^\d\s,.;:=+*/^()\[\]{}<>\\!|-][^=+*()\[\]{}<>\\|]*)?"
)
_FUNCTIONS = r"sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infty|min|max"
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


class NoValue(ValueError):
    """Why a text has no value that could be compared."""


@dataclass(frozen=True)
class Value:
    """A number with its unit, a list, or a formula of sympy.

    Args:
        number: exact, or None.
        unit: as `UNITS` names it, or empty.
        items: of a list, or None.
        brackets: around the list, or empty.
        formula: or None.
        is_undone: whether the formula is arithmetic that is left to do.
    """

    number: Fraction | None = None
    unit: str = ""
    items: "tuple[Value, ...] | None" = None
    brackets: str = ""
    formula: Any = None
    is_undone: bool = False


def read_value(text: str) -> Value:
    """Read the value that a whole text states; the text is normalised.

    Raises:
        NoValue: it states none, or more than the value.
    """
    text = _unwrap(text)
    if not text:
        raise NoValue("it is empty")
    if len(text) > MAX_CHARACTERS:
        raise NoValue("it is a text, not a value")
    quantity = _read_quantity(text)
    if quantity is not None:
        return quantity
    if ":" in text:
        raise NoValue(f"{text!r} may be a time or a ratio")
    if "=" in text:
        *left, right = text.split("=")
        if right.strip() and all(map(_names_or_works_out, left)):
            value = read_value(right)
            return _find_result(left, value) if value.is_undone else value
    listed = _read_list(text)
    return listed if listed is not None else _read_formula(text)


def _find_result(sides: list[str], undone: Value) -> Value:
    """Return the number that stands on another side of an equation than its arithmetic, as in 12 = 5 + 7."""
    numbers = filter(None, (_read_quantity(side.strip()) for side in sides))
    return next((number for number in numbers if are_equal(number, Value(formula=undone.formula))), undone)


def _unwrap(text: str) -> str:
    """Without marks of formulas and the end of the sentence around it."""
    before = None
    while before != text:
        before = text = text.strip()
        text = text.rstrip(".;,!?") if not re.search(r"\d!$|[a-z)]!$", text) else text
        for start, end in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ('"', '"'), ("'", "'")):
            if len(text) >= len(start) + len(end) and text.startswith(start) and text.endswith(end):
                inner = text[len(start) : -len(end)]
                text = text if start in inner or not inner.strip() else inner
    return text


def _read_quantity(text: str) -> Value | None:
    """Read a number with what stands before and behind it, or None where the text is something else."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    unit, scale = _read_behind(match["behind"] or "", spaced=" " in text)
    if unit is None:
        return None
    number = _to_fraction(match["top"])
    if match["bottom"]:
        bottom = _to_fraction(match["bottom"])
        if not bottom:
            raise NoValue("it divides by 0")
        number /= bottom
    if match["whole"]:
        if not match["bottom"]:  # numbers side by side
            return None
        number += int(match["whole"])
    if (match["sign"] + match["sign2"]).count("-") % 2:
        number = -number
    if match["currency"]:
        unit = UNITS.get(match["currency"].lower(), unit)
    return Value(number * scale, unit)


def _read_behind(text: str, spaced: bool) -> tuple[str | None, int]:
    """Read the unit and the scale that the words behind a number name; None where they are no names of things."""
    words = re.findall(r"[^\s]+", text.strip().lower())
    if not words:
        return "", 1
    if len(words) > 4 or any(word.strip(".,") in NO_UNITS or re.search(r"[\d:;,?]", word) for word in words):
        return None, 1
    scale = 1
    while words and words[0] in SCALES:
        scale *= SCALES[words.pop(0)]
    unit = UNITS.get(words[0].rstrip(".")) if words else ""
    if unit is None and len(words[0]) == 1 and words[0].isascii():  # 3 x is a formula
        return None, 1
    if unit is None and not spaced and words[0].isascii():  # 3xy too
        return None, 1
    if unit and len(words[0]) == 1 and not spaced and words[0].isalpha() and words[0].isascii():
        return None, 1
    return unit or "", scale


def _to_fraction(text: str) -> Fraction:
    digits, _, exponent = text.replace(",", "").lower().partition("e")
    if len(digits) > MAX_CHARACTERS or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise NoValue("its number has too many digits")
    return Fraction(digits) * Fraction(10) ** int(exponent or 0)


def _names_or_works_out(left: str) -> bool:
    """Tell whether a side of an equation only names the value (x, f(x), Total cost), or works it out (2 + 3)."""
    left = left.strip().strip("$").strip()
    if re.fullmatch(r"(?:[A-Za-z]\w*|[A-Za-z]\([a-z]\))", left) or re.fullmatch(r"[A-Za-z][A-Za-z ]+", left):
        return True
    return not re.search(r"[A-Za-z]", re.sub(rf"\\(?:frac|cdot|times|div|left|right|{_FUNCTIONS})", "", left))


def _read_list(text: str) -> Value | None:
    """Read a list with or without brackets, or None where the text is none."""
    plain = text.replace(r"\{", "{").replace(r"\}", "}")
    brackets, inner = "", plain
    if plain[0] in _BRACKETS and plain[-1] in ")]}" and _closes_at(plain) == len(plain) - 1:
        brackets, inner = plain[0] + plain[-1], plain[1:-1]
    parts = _split_at_commas(re.sub(r",?\s+and\s+", ", ", inner))
    if len(parts) == 1:
        return read_value(inner) if brackets == "()" else None
    if any(re.fullmatch(r"0\d+", part.strip()) for part in parts):
        raise NoValue(f"{text!r} may be a number or a list")
    return Value(items=tuple(map(read_value, parts)), brackets=brackets)


def _closes_at(text: str) -> int:
    """Find where the bracket that a text begins with is closed; the two may differ, as in (3, 4]."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return index
    return -1


def _split_at_commas(text: str) -> list[str]:
    parts, depth = [""], 0
    pieces = re.findall(r"(?<![\d,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|.", text, re.S)
    for piece in pieces:
        depth += (piece in "([{") - (piece in ")]}") if len(piece) == 1 else 0
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _read_formula(text: str) -> Value:
    from math_verify import LatexExtractionConfig, parse  # sympy takes a second to import

    latex = _to_latex(text)
    _check_formula(text, latex)
    found = parse(f"${latex}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=_timeout())
    if not found:
        raise NoValue(f"{text!r} can't be read as a number or a formula")
    formula = found[0]
    if getattr(formula, "is_Rational", False):
        return Value(Fraction(int(formula.p), int(formula.q)))
    return Value(formula=formula, is_undone=_is_arithmetic(text))


def _is_arithmetic(text: str) -> bool:
    """Tell whether a text adds, subtracts, multiplies or divides numbers; powers of ten are a way to write one."""
    operator = r"(?:[-+*/]|\\(?:cdot|times|div)(?![A-Za-z]))"
    bare = re.sub(rf"{operator}\s*10\s*\^", "e", text)
    return re.search(rf"\d[)\]}}%\s]*{operator}[(\[{{\s+-]*[\d.\\]", bare) is not None


def _to_latex(text: str) -> str:
    text = re.sub(r"(?<=[\w)])\s*\*\*\s*(?=[\w(])", "^", text)
    text = re.sub(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])", r"\\\1", text)
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\text\s*\{\s*([^{}]*)\}", "", text) if re.search(r"\d", text) else text
    return text.replace("*", r" \cdot ").replace(r"\%", "%").replace("%", r"\%")


def _check_formula(text: str, latex: str) -> None:
    """Refuse what would be read in part, or never end."""
    if not re.search(r"\d|\\[A-Za-z]{2}", latex) and not re.search(r"[A-Za-z]\s*[-+*/^=]\s*[A-Za-z]", latex):
        raise NoValue("it states no number or formula")
    bare = re.sub(r"\\[A-Za-z]+", " § ", latex)
    if any(re.fullmatch(r"[^\W\d_]{2,}", word) for word in re.split(r"[\s,.;]+", bare)) or re.search(
        r"[^\W\d_]{4,}", bare
    ):
        raise NoValue(f"{text!r} holds words")
    if re.search(r"\d\s+\.?\d", bare) or re.search(r"\d\.\d*\.|[–:?~#&@\"']", bare.replace(r"\\&", "")):
        raise NoValue(f"{text!r} is not one number or formula")
    if re.search(r"\d[eE]\d|(?<![\d.,])0\d|(?<![A-Za-z_])[A-Za-z]\d", bare):
        raise NoValue(f"{text!r} holds a number that can be read in several ways")
    if re.search(r"\^\s*(?:\{[^{}]*\^|\(?\d+\)?\s*\^)|\^\s*\{?\(?-?\d{4,}|\d{4,}\s*!|!\s*!|\)\s*!", latex):
        raise NoValue("it is too large to be worked out")


def are_equal(gold: Value, found: Value) -> bool:
    """Tell whether two values are the same; of a percentage, `gold` tells how the sign may be left out."""
    if gold.items is not None or found.items is not None:
        return _are_equal_lists(gold, found)
    if gold.number is not None and found.number is not None:
        return _are_equal_numbers(gold, found)
    if gold.number is not None and found.is_undone:
        return False
    from math_verify import verify

    one, other = (v.formula if v.number is None else _to_sympy(v.number) for v in (gold, found))
    return bool(verify([one], [other], timeout_seconds=_timeout()))


def _are_equal_numbers(gold: Value, found: Value) -> bool:
    assert gold.number is not None and found.number is not None
    one, other = gold.number, found.number
    if (gold.unit == "%") == (found.unit == "%"):
        return one == other and (gold.unit == found.unit or not (gold.unit and found.unit))
    if gold.unit == "%":
        return other in (one, one / 100) and not found.unit
    # What is 1 or less may be a share, of which the same number of percent is something else.
    return (other / 100 == one or (other == one and abs(one) > 1)) and not gold.unit


def _are_equal_lists(gold: Value, found: Value) -> bool:
    if gold.items is None or found.items is None or len(gold.items) != len(found.items):
        return False
    if gold.brackets and found.brackets and gold.brackets != found.brackets:
        return False
    if "{}" in (gold.brackets, found.brackets) or not (gold.brackets or found.brackets):
        left = list(found.items)
        for item in gold.items:
            same = next((other for other in left if are_equal(item, other)), None)
            if same is None:
                return False
            left.remove(same)
        return True
    return all(map(are_equal, gold.items, found.items))


def _to_sympy(number: Fraction) -> Any:
    from sympy import Rational

    return Rational(number.numerator, number.denominator)


def _timeout() -> int | None:
    """Return a timeout, which is a signal that only the main thread can take."""
    return TIMEOUT if threading.current_thread() is threading.main_thread() else None
