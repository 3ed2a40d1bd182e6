"""Tables of scores in Markdown and HTML, beside figures that others published."""

from html import escape
from typing import Any

from ..utils.markdown import write_table
from .baselines import GUESS
from .published import PUBLISHED, SPEED, find_figure


HEAD = ("task", "score", "95% interval", "standard error", "chance", "items", "shots")
NOTE = (
    "Scores are percentages, unless their row says otherwise. A score in grey, or with (chance), is not above guessing at "
    "95%: it tells nothing. Columns with * are published figures, on other items of the same tasks, and were not run again; "
    "(5-shot) and the like stand where they were asked with another number of examples."
)
CONTROL_NOTE = "Columns with + were run here, on the same items, by the harness's hf class on plain transformers"
STYLE = (
    "body{font-family:sans-serif;margin:2em}.wide{overflow-x:auto}table{border-collapse:collapse}"
    "td,th{padding:.3em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}"
    "td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}"
    "td:last-child{white-space:normal;min-width:24em}.sure{font-weight:bold}.chance{color:#888}li{margin:.2em 0}"
)


def list_cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of a table: the model's own cells, those of other models, and how it was asked."""
    published, controls = PUBLISHED[result["suite"]], result.get("controls", [])
    rows = [
        [
            *_write_row(row),
            *(_write_control(control, row) for control in controls),
            *(find_figure(entry, row["row"], row["shots"]) for entry in published.values()),
            f"{row['form']}: {row['prompt']}; {'chat' if row['chat'] else 'plain'}, {row['metric']}",
        ]
        for row in result["rows"]
    ]
    head = [
        *HEAD,
        *(f"{_shorten(control['model'])}+" for control in controls),
        *(f"{name}*" for name in published),
        "form",
    ]
    speed = result.get("speed")
    if speed:
        figures = ["-" if entry["speed"] is None else str(entry["speed"]) for entry in published.values()]
        own = ["tokens / s", f"{speed['tokens_per_second']:,.0f}", *["-"] * (len(HEAD) - 2)]
        rows.append([*own, *["-"] * len(controls), *figures, "decoding one text"])
    return head, rows


def list_above_chance(result: dict[str, Any]) -> list[bool | None]:
    """Tell of each row of the table whether its score is above chance; None where it is no score."""
    return [*(row["above_chance"] for row in result["rows"]), *[None] * bool(result.get("speed"))]


def _write_row(row: dict[str, Any]) -> list[str]:
    """Write the cells of a row that are the model's own."""
    return [
        row["row"],
        _write(row, "score"),
        f"{_write(row, 'low')} to {_write(row, 'high')}",
        _write(row, "stderr"),
        _write(row, "chance"),
        f"{row['n']:,}",
        str(row["shots"]),
    ]


def _write(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None or value != value:
        return "-"
    return f"{100 * value:.1f}" if row["unit"] else f"{value:.2f}"


def _write_control(control: dict[str, Any], row: dict[str, Any]) -> str:
    """Write what a control scored on the same items."""
    same = [one for one in control["rows"] if (one["row"], one["shots"]) == (row["row"], row["shots"])]
    return f"{_write(same[0], 'score')}{'' if same[0]['above_chance'] else ' (chance)'}" if same else "-"


def list_facts(result: dict[str, Any]) -> list[str]:
    """Return what a reader needs to run the table again, and what could not be asked as it was meant."""
    facts = [NOTE]
    facts += [f"{name}*: {entry['source']}." for name, entry in PUBLISHED[result["suite"]].items()]
    if any(entry["speed"] for entry in PUBLISHED[result["suite"]].values()):
        facts.append(f"tokens / s*: {SPEED}.")
    if result.get("speed"):
        speed = result["speed"]
        threads = f", {speed['threads']} threads" if speed["threads"] else ""
        facts.append(f"tokens / s: {speed['machine']}{threads}, one text at a time, from its beginning.")
    facts += [
        f"{_shorten(control['model'])}+: {control['model']}, {control['model_hash']}. {CONTROL_NOTE}."
        for control in result["controls"]
    ]
    if result["limit"] is not None:
        facts.append(
            f"Only {result['limit']} items of each task were asked: the first ones, or of each subject or subtask by turns."
        )
    facts += list_warnings(result)
    for row in result["rows"]:
        facts += _tell_row(row)
    facts.append(
        f"Model {result['model_hash']} on {result['engine']}, at most {result['max_length']:,} tokens a text, chat template "
        f"{result['chat_template_hash'] or 'not used'}, commit {result['commit'] or 'unknown'}, "
        f"{', '.join(f'{name} {v}' for name, v in result['versions'].items())}."
    )
    return facts


def list_warnings(result: dict[str, Any]) -> list[str]:
    """Return what was left out, replaced, cut or found otherwise, which a reader of the scores must know."""
    warnings = [f"{part['row']} was left out: {part['why']}." for part in result["skipped"]]
    warnings += [f"{note}." for note in result["notes"]]
    for row in result["rows"]:
        warnings += _tell_limits(row)
    for control in result["controls"]:
        warnings += [f"{_shorten(control['model'])}+, {cut}" for row in control["rows"] for cut in _tell_cut(row)]
    return [*warnings, *(_tell_check(part) for part in result["check"])]


def _tell_limits(row: dict[str, Any]) -> list[str]:
    """Tell what could not be asked as a row's tasks meant it."""
    if row["is_further"]:
        return []
    notes, name = row["notes"] or {}, f"{row['row']}, {row['shots']}-shot"
    facts = [f"{name}: {note}." for note in row["data_notes"]]
    facts += _tell_cut(row)
    if notes.get("num_split_words"):
        facts.append(f"{name}: {notes['num_split_words']:,} boundaries fell inside a token.")
    if notes.get("num_unended"):
        facts.append(f"{name}: {notes['num_unended']:,} answers did not end within their length.")
    return facts


def _tell_cut(row: dict[str, Any]) -> list[str]:
    """Tell how many texts of a row were too long for the model, and were cut or left out with their items."""
    notes, facts = row["notes"] or {}, list[str]()
    if row["is_further"]:
        return facts
    name = f"{row['row']}, {row['shots']}-shot"
    if notes.get("num_cut"):
        facts.append(f"{name}: {notes['num_cut']:,} texts were too long; {notes['num_cut_tokens']:,} tokens were cut.")
    if notes.get("num_left_out"):
        left = notes["num_left_out"]
        facts.append(f"{name}: {left:,} items were left out: one of their choices is longer than the model takes.")
    return facts


def _tell_row(row: dict[str, Any]) -> list[str]:
    """Tell the groups of a row, and the hashes of its tasks and prompts."""
    if row["is_further"]:
        return []
    name, facts = f"{row['row']}, {row['shots']}-shot", list[str]()
    if row["groups"]:
        parts = (f"{group} {100 * part['score']:.1f} of {part['n']}" for group, part in row["groups"].items())
        facts.append(f"{name} is the mean of {len(row['groups'])} groups: {', '.join(parts)}.")
        groups = row["groups"].values()
        right = sum(part["score"] * part["n"] for part in groups) / sum(part["n"] for part in groups)
        facts.append(f"{name} over all items alike, as in lighteval's table: {100 * right:.1f}.")
    facts += [
        f"{name}: chance in {task} is {', '.join(f'{kind} ({100 * share:.1f})' for kind, share in found.items())}"
        f"{'; the better of the last two' if len(found) > 1 else ''}."
        for task, found in row.get("chance_scores", {}).items()  # results of earlier versions have none
        if set(found) != {GUESS}
    ]
    hashes = ", ".join(
        f"{t} {a} {b}" for t, a, b in zip(row["tasks"], row["task_hashes"], row["prompt_hashes"], strict=True)
    )
    return [*facts, f"{name}: hashes of task and prompts: {hashes}."]


def _tell_check(part: dict[str, Any]) -> str:
    """Tell how far plain `transformers` gave the same on a task."""
    far = part["largest_difference"]
    space = "; in conversations it scores white space at the end of the template as part of the answer"
    how = (
        f"{part['num_same_answers']} of {part['n']} answers are the same"
        if far is None
        else f"log-likelihoods differ by {far:.1e} at most"
    )
    return (
        f"Check with plain transformers, {part['task']}, {part['shots']}-shot: {part['num_same_scores']} of {part['n']} items "
        f"score the same, {how}; {part['num_split_words']} boundaries inside a token and {part['num_cut']} cut texts are asked "
        f"in another way there{space if part['chat'] and far is not None else ''}."
    )


def write_markdown(result: dict[str, Any]) -> str:
    """Write a table in Markdown; only scores above chance are bold."""
    head, rows = list_cells(result)
    for cells, sure in zip(rows, list_above_chance(result), strict=True):
        cells[1] = {True: f"**{cells[1]}**", False: f"{cells[1]} (chance)", None: cells[1]}[sure]
    facts = (f"- {fact}" for fact in list_facts(result))
    return "\n".join([f"# {result['model']}, {result['suite']} suite", "", write_table(head, rows), "", *facts, ""])


def write_html(result: dict[str, Any]) -> str:
    """Write a page with the table; scores that are not above chance are grey."""
    head, rows = list_cells(result)
    title = escape(f"{result['model']}, {result['suite']} suite")
    body = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for cells, sure in zip(rows, list_above_chance(result), strict=True):
        kind = {True: "sure", False: "chance", None: "plain"}[sure]
        body.append("<tr>" + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell in cells[:2]))
        body.append("".join(_write_cell(cell) for cell in cells[2:]) + "</tr>")
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in list_facts(result))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>\n'
        f'<body><h1>{title}</h1><div class="wide"><table>{"".join(body)}</table></div><ul>{facts}</ul></body></html>\n'
    )


def _shorten(model: str) -> str:
    """Return the last part of a folder or hub name."""
    return model.rstrip("/").rsplit("/", 1)[-1]


def _write_cell(cell: str) -> str:
    return f'<td class="chance">{escape(cell)}</td>' if cell.endswith("(chance)") else f"<td>{escape(cell)}</td>"
