r"""Answers that can be verified: the value that a text states, and whether it is the value of a reference.

A reference answer is read as a whole or refused, so that no part of it passes for it. In an answer, the last value that is
stated counts: what is marked (`<answer>`, `\boxed`, `####`), else what "the answer is" (also 答案是), else the last
number or formula. What a text denies ("not 12") and what it leaves open ("12 or 13") is not stated. How values are read and
compared: `small_doge.utils.values`; formulas are read and compared by math-verify.
"""

import re
import unicodedata
from functools import lru_cache

from .errors import UserError
from .units import UNITS
from .values import NUMBER, NoValue, Value, are_equal, read_value


REMEMBERED = 8192
# Of an answer, the last characters that are looked through.
LOOKED_THROUGH = 4000

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−﹣‒‐‑", "-"),
        **dict.fromkeys("×·⋅∙∗", "*"),
        **dict.fromkeys("“”„‟「」『』《》", '"'),
        "÷": "/",
        "∕": "/",
        "⁄": "/",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "。": ". ",
        "｡": ". ",
        "、": ", ",
        "【": "[",
        "】": "]",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u200b": "",
    }
)
_HARD_MARK = re.compile(r"<answer>(.*?)</answer>|####[ \t]*([^\n]+)|\\f?boxed\s*(?=\{)", re.S | re.I)
_SOFT_MARK = re.compile(r"(?:\banswer|\bresult|\bans|答案|结果|答)\s*(?:is|are|was|equals|:|=|为|是)\s*:?\s*", re.I)
_SENTENCE_END = re.compile(r"(?<!\d)[.!?](?=\s|$)|(?<=\d)[.?](?=\s|$)|[;\n]")
_DENIAL = re.compile(
    r"(?:\b(?:not|never|neither|nor|isn't|aren't|wasn't|cannot|no longer|other than|instead of|rather than)|n't|\\neq?|"
    r"不是|不等于|并非|不为)\s*(?:(?!but\b)[\w*$]+\s+){0,3}$",
    re.I,
)
_LEAD = re.compile(
    r"^(?:\s|[,:=]|\b(?:so|thus|hence|therefore|then|and|it|this|that|the|total|value|sum|is|are|equals|equal|to|there|"
    r"we|get|gives|have|i|final|answer|result|ans|which)\b|答案|结果|所以|因此|是|为|等于)+",
    re.I,
)
_CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"


def split_thought(text: str, tags: tuple[str, str]) -> tuple[str | None, str]:
    """Split an answer into the thought between `tags`, None if there is none, and the answer after it.

    A thought that was opened and not closed has no answer after it: the answer is then empty.
    """
    start, end = tags
    if end in text:
        thought, _, answer = text.rpartition(end)
        return thought.partition(start)[2] if start in thought else thought, answer
    if start in text:
        return text.partition(start)[2], ""
    return None, text


@lru_cache(REMEMBERED)
def parse_answer(text: str) -> tuple[Value, ...]:
    """Parse the value that an answer states at last, alone in a tuple; empty if it states none."""
    try:
        return (_find_statement(_normalise(text[-LOOKED_THROUGH:])),)
    except (NoValue, RecursionError):
        return ()


@lru_cache(REMEMBERED)
def _read_reference(text: str) -> Value | str:
    """Read the value of a reference answer, or say why it has none."""
    try:
        text = _normalise(text)
        marked = find_marked(text)
        if marked is None:
            softs = list(_SOFT_MARK.finditer(text))
            marked = text[softs[-1].end() :] if softs else text
        try:
            return read_value(marked)
        except NoValue:
            return read_value(_LEAD.sub("", marked))
    except NoValue as error:
        return str(error)
    except RecursionError:
        return "it is too deeply nested"


def find_fault(reference: str) -> str | None:
    """Say why a reference answer can't be verified against, or None if it can be."""
    read = _read_reference(reference)
    return read if isinstance(read, str) else None


def is_right(answer: str, reference: str) -> bool:
    """Tell whether an answer states the value of the reference answer.

    Raises:
        ValueError: the reference states no value, so nothing can be verified against it.
    """
    gold = _read_reference(reference)
    if isinstance(gold, str):
        raise UserError(f"the reference answer {reference!r} states no value that could be verified: {gold}")
    found = parse_answer(answer)
    return bool(found) and are_equal(gold, found[0])


def says(answer: str, words: str) -> bool:
    """Tell whether words stand in an answer as whole words, in any case: "no" does not stand in "know"."""
    wanted, said = (re.sub(r"\s+", " ", text.strip().lower()) for text in (words, answer))
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said) is not None


def _normalise(text: str) -> str:
    """Give digits, signs, punctuation and LaTeX's spaces one spelling."""
    text = re.sub(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))", ",", text)  # thousands
    text = "".join(_normalise_character(c) for c in text.translate(_CHARACTERS)) if not text.isascii() else text
    text = re.sub(r"(?<=[\w)}\]])([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)", lambda m: f"^{{{m[1].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"(?<![\w)}\]])\s*–\s*(?=[\d.(\\])", " -", text)  # a sign; elsewhere it may be a range
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*(\w+)", r"\\sqrt{\1}", text)
    text = re.sub(rf"({_CJK})(?=[\w$\\(-])(?!{_CJK})|(?<=[\w$)%])(?<!{_CJK})(?={_CJK})", r"\1 ", text)
    if "\\" in text:
        text = re.sub(r"(?<=\d)(?:\{,\}|\\[,!])\s*(?=\d{3})", ",", text)
        text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,;:]|\\ ", " ", text)
        text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
        text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
        text = re.sub(r"\\frac\s*\{(-?\d+)\}\s*\{(\d+)\}(?=\s|[$.,]|$)", r" \1/\2 ", text)
        text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r" \1 ", text)
        text = text.replace(r"\$", "$").replace(r"\%", "%").replace(r"^\circ", "°").replace(r"^{\circ}", "°")
    text = re.sub(r"(?<=[\d)a-z])\*\*(?=[\d(a-z])", "^", text)
    return re.sub(r"`+|\*\*|__", "", text).strip()


def _normalise_character(character: str) -> str:
    code = ord(character)
    if code == 0x3000:
        return " "
    if 0xFF01 <= code <= 0xFF5E:
        return chr(code - 0xFEE0)
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind == "No" and "⁄" in (fraction := unicodedata.normalize("NFKC", character)):  # one half and the like
        return " " + fraction.replace("⁄", "/")
    return character


def find_marked(text: str) -> str | None:
    """Find what the last mark of an answer holds, or None without one."""
    marks = list(_HARD_MARK.finditer(text))
    if not marks:
        return None
    last = marks[-1]
    if last[1] is not None or last[2] is not None:
        return last[1] if last[1] is not None else last[2]
    depth = 0
    for index in range(last.end(), len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[last.end() + 1 : index]
    return ""


def _find_statement(text: str) -> Value:
    """Find the value that a normalised text states at last."""
    marked = find_marked(text)
    if marked is not None:
        return _find_statement(marked) if not _HARD_MARK.search(marked) else read_value(marked)
    for mark in reversed(list(_SOFT_MARK.finditer(text))):
        rest = text[mark.end() :]
        end = _SENTENCE_END.search(rest)
        rest = rest[: end.start()] if end else rest
        if re.match(r"(?:not\b|不)", rest, re.I) or _DENIAL.search(text[: mark.start()]):
            continue
        spans = _find_spans(rest)
        if spans and not rest[: spans[0][0]].strip():
            return _read_span(rest, spans, 0)
        if spans or rest.strip():
            return _read_span(rest, spans, len(spans) - 1)
    try:
        return read_value(text)
    except NoValue:
        spans = _find_spans(text)
        return _read_span(text, spans, len(spans) - 1)


_TOKEN = re.compile(
    rf"\$[^$\n]*[\d\\][^$\n]*\$|\\\(.*?\\\)|\\\[.*?\\\]"
    rf"|(?:(?:US)?[$€£¥₹]\s?)?[+-]?(?:{NUMBER})(?:/(?:{NUMBER}))?%?(?![\w])"
    r"|\\(?:frac|sqrt|pi|infty|cdot|times|le|ge|log|ln|sin|cos|tan)(?![A-Za-z])(?:\s*\[[^\]]*\])?(?:\s*\{(?:[^{}]|\{[^{}]*\})*\})*"
    r"|(?<![A-Za-z])\d*\.?\d*[a-zA-Z](?![A-Za-z'])(?:\^\{?\d+\}?)?"
    r"|[-+*/^=()\[\]!,%{}<>|]|\S+?(?=[\s,;:!?()\[\]=]|\.(?:\s|$)|$)|\S",
    re.S,
)


def _find_spans(text: str) -> list[tuple[int, int]]:
    """Find where numbers and formulas stand in prose."""
    spans: list[tuple[int, int]] = []
    start = stop = -1
    for match in [*_TOKEN.finditer(text), None]:
        if (
            match is not None
            and (_is_part(match[0]))
            and (start < 0 or not _SENTENCE_END.search(text[stop : match.start()]))
        ):
            start, stop = (match.start() if start < 0 else start), match.end()
            continue
        if start >= 0:
            spans += _trim(text, start, stop)
        start = match.start() if match is not None and _is_part(match[0]) else -1
        stop = match.end() if start >= 0 and match is not None else -1
    return spans


def _is_part(token: str) -> bool:
    """Tell whether a token belongs to a formula, not to prose."""
    if re.fullmatch(r"[-+*/^=()\[\]!,%{}<>|]|[\d.]*[a-zA-Z](?:\^\{?\d+\}?)?", token):
        return True
    return bool(
        re.match(r"\$.*\$$|\\|(?:US)?[$€£¥₹]?\s?[+-]?\.?\d[\d,.]*(?:[eE][+-]?\d+)?(?:/[\d,.]+)?%?$", token, re.S)
    )


def _trim(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    """Trim single letters and marks at the ends of a run of tokens that belong to the prose; nothing may be left."""
    run = text[start:stop]
    lead = re.match(r"(?:[aAI]\s+(?![-+*/^=])|[,*/^=!%)\]}>|]\s*|-\s+|[a-zA-Z]\s+(?![-+*/^=]))+", run)
    start += lead.end() if lead else 0
    run = text[start:stop]
    # In prose, "12!" is 12 said aloud.
    tail = re.search(r"(?:\s+[a-zA-Z](?<![-+*/^=]\s[a-zA-Z])|\s*[,(\[{<|*/^=+!-])+$", run)
    stop -= len(tail[0]) if tail else 0
    run = text[start:stop]
    for opening, closing in ("()", "[]"):
        if run.startswith(opening) and run.count(opening) > run.count(closing):
            start += 1
        elif run.endswith(closing) and run.count(closing) > run.count(opening) and not run.startswith(("(", "[")):
            stop -= 1
        run = text[start:stop]
    return [(start, stop)] if re.search(r"\d|\\(?:pi|infty|sqrt|frac)", run) else []


def _read_span(text: str, spans: list[tuple[int, int]], index: int) -> Value:
    """Read the value of a span, or of the one before it where the text denies it.

    Raises:
        NoValue: there is none, or it is one of several that are left open.
    """
    while index >= 0:
        start, stop = spans[index]
        clause = re.split(r"[.;:!?,\n](?:\s|$)", text[:start])[-1]
        if _DENIAL.search(clause):
            index -= 1
            continue
        before = text[spans[index - 1][1] : start] if index else ""
        after = text[stop : spans[index + 1][0]] if index + 1 < len(spans) else ""
        if any(
            re.fullmatch(r"[\s,]*(?:or|或者?|and/or|to|through)[\s,]*(?:maybe\s+)?", gap, re.I)
            for gap in (before, after)
        ):
            raise NoValue("it leaves several values open")
        if re.match(r":\d", text[stop:]) or re.search(r"\d:$", text[:start]):
            raise NoValue("it may be a time or a ratio")
        if re.fullmatch(r",?\s+(?:and|和)\s+", before):
            start = spans[index - 1][0]
        value = read_value(text[start:stop])
        word = re.match(r"\s*([^\W\d_]+|%|°)", text[stop:])
        if word and value.number is not None and not value.unit:
            return Value(value.number, UNITS.get(word[1].lower(), ""))
        return value
    raise NoValue("it states no number or formula")
