"""Tables of scores in Markdown and HTML, beside figures that others published."""

from collections.abc import Sequence
from html import escape
from typing import Any


BASE = ("MMLU", "TriviaQA", "ARC", "PIQA", "HellaSwag", "OBQA", "Winogrande")
GUIDE = "SmallDoge's README; MMLU, TriviaQA, ARC, PIQA 5-shot, others 0-shot"
CHAT_GUIDE = "SmallDoge's README; chat template, BBH 3-shot, others 0-shot"
# Published, and not run again. Figures that no source at hand states are left out: nothing is guessed.
PUBLISHED: dict[str, dict[str, tuple[str, dict[str, float]]]] = {
    "base": {
        "Doge-20M": (
            GUIDE,
            dict(zip(BASE, (25.4, 0.03, 29.8, 58.4, 27.3, 25.6, 50.2), strict=True)),
        ),
        "Doge-60M": (
            GUIDE,
            dict(zip(BASE, (26.4, 0.2, 37.9, 61.4, 31.5, 28.0, 50.8), strict=True)),
        ),
        "Doge-160M": (
            GUIDE,
            dict(zip(BASE, (29.2, 4.8, 44.4, 66.3, 38.7, 34.4, 52.2), strict=True)),
        ),
        "SmolLM2-135M": (
            "published by its makers, after 2T tokens; zero-shot unless they say otherwise",
            {"MMLU": 31.5, "ARC": 43.9, "PIQA": 68.4, "HellaSwag": 42.1, "Winogrande": 51.3},
        ),
    },
    "instruct": {
        "Doge-20M-Instruct": (CHAT_GUIDE, {"MMLU": 26.3, "BBH": 18.3, "ARC": 29.2, "PIQA": 57.8, "HellaSwag": 27.8}),
        "Doge-60M-Instruct": (CHAT_GUIDE, {"MMLU": 27.5, "BBH": 27.7, "ARC": 37.5, "PIQA": 61.4, "HellaSwag": 32.1}),
        "Doge-160M-Instruct": (CHAT_GUIDE, {"MMLU": 29.7, "BBH": 29.1, "ARC": 42.8, "PIQA": 64.1, "HellaSwag": 37.1}),
    },
    "reason": {},
}
HEAD = ("task", "score", "95% interval", "standard error", "chance", "items", "shots", "form")
NOTE = (
    "Scores are percentages. A score in grey, or with (chance), is not above guessing at 95%: it tells nothing. "
    "Columns with * are published figures, on other items of the same tasks, and were not run again."
)


def list_cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of a table; the score is the second cell."""
    published = PUBLISHED[result["suite"]]
    rows = [
        [
            row["row"],
            f"{100 * row['score']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            "-" if row["stderr"] is None or row["stderr"] != row["stderr"] else f"{100 * row['stderr']:.1f}",
            f"{100 * row['chance']:.1f}",
            f"{row['n']:,}",
            str(row["shots"]),
            f"{row['form']}, {'chat' if row['chat'] else 'plain'}, {row['metric']}",
            *(str(figures.get(row["row"], "-")) for _, figures in published.values()),
        ]
        for row in result["rows"]
    ]
    return [*HEAD, *(f"{name}*" for name in published)], rows


def list_facts(result: dict[str, Any]) -> list[str]:
    """Return what a reader needs to run the table again, and what could not be asked as it was meant."""
    facts = [NOTE]
    facts += [f"{name}*: {source}." for name, (source, _) in PUBLISHED[result["suite"]].items()]
    if result["limit"] is not None:
        facts.append(f"Only the first {result['limit']} items of each task were asked.")
    for row in result["rows"]:
        notes = row["notes"]
        if notes["num_cut"]:
            facts.append(
                f"{row['row']}: {notes['num_cut']} texts were too long; {notes['num_cut_tokens']} tokens were cut."
            )
        if notes["num_split_words"]:
            facts.append(f"{row['row']}: {notes['num_split_words']} boundaries fell inside a token.")
        hashes = ", ".join(
            f"{t} {a} {b}" for t, a, b in zip(row["tasks"], row["task_hashes"], row["prompt_hashes"], strict=True)
        )
        facts.append(f"{row['row']}: hashes of task and prompts: {hashes}.")
    facts.append(
        f"Model {result['model_hash']}, chat template {result['chat_template_hash'] or 'not used'}, commit "
        f"{result['commit'] or 'unknown'}, {', '.join(f'{name} {v}' for name, v in result['versions'].items())}."
    )
    return facts


def write_markdown(result: dict[str, Any]) -> str:
    """Write a table in Markdown; only scores above chance are bold."""
    head, rows = list_cells(result)
    lines = [f"# {result['model']}, {result['suite']} suite", "", _join(head), _join(["---"] * len(head))]
    for cells, row in zip(rows, result["rows"], strict=True):
        score = f"**{cells[1]}**" if row["above_chance"] else f"{cells[1]} (chance)"
        lines.append(_join([cells[0], score, *cells[2:]]))
    return "\n".join([*lines, "", *(f"- {fact}" for fact in list_facts(result)), ""])


def write_html(result: dict[str, Any]) -> str:
    """Write a page with the table; scores that are not above chance are grey."""
    head, rows = list_cells(result)
    title = escape(f"{result['model']}, {result['suite']} suite")
    body = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for cells, row in zip(rows, result["rows"], strict=True):
        kind = "sure" if row["above_chance"] else "chance"
        body.append("<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell in cells[:2]))
        body.append("".join(f"<td>{escape(cell)}</td>" for cell in cells[2:]) + "</tr>")
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in list_facts(result))
    style = (
        "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .7em;text-align:right;"
        "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}.sure{font-weight:bold}.chance{color:#888}"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>\n'
        f"<body><h1>{title}</h1><table>{''.join(body)}</table><ul>{facts}</ul></body></html>\n"
    )


def _join(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
