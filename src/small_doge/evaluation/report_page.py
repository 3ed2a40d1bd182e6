"""A report as one page, as Markdown, and as the figures of a model card, all of the same tables."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..trainer.pictures import draw_training, find_compared
from ..utils.markdown import write_table
from ..utils.plots import draw_svg
from . import perplexity_tables, score_tables
from .journey import MEANINGS, format_score


FIGURE_WIDTH = 5.2  # inches; narrow, so that its letters are not small on a phone


@dataclass
class Table:
    """Headings, rows, and what is said below."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    grey: frozenset[int] = frozenset()  # rows that say nothing


@dataclass
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        tables: with figures.
        figure: draws a picture, which is as high as told; None without.
        height: of the picture.
        missing: the command that makes the part, where it is missing.
        texts: samples, as (heading, text).
        in_card: whether its tables belong to the figures of the card.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    figure: Callable[[Any], None] | None = None
    height: float = 3.2
    missing: str | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    in_card: bool = True


def list_sections(report: dict[str, Any]) -> list[Section]:
    """List the parts of a report, in their order."""
    missing = report["missing"]
    return [
        _describe_model(report),
        _describe_training(report, missing.get("training")),
        *_describe_scores(report, missing.get("scores")),
        _describe_perplexity(report["perplexity"], missing.get("perplexity")),
        _describe_speed(report["speed"]),
        _describe_samples(report["samples"]),
    ]


def _describe_model(report: dict[str, Any]) -> Section:
    sizes = report["sizes"]
    facts = {} if sizes["parameters"] is None else {"parameters": f"{sizes['parameters']:,}"}
    facts |= {
        name: f"{value:,}" if isinstance(value, int) else value for name, value in report["architecture"].items()
    }
    facts |= {name: f"{size / 1e6:,.2f} MB" for name, size in (sizes["weights"] | sizes["exports"]).items()}
    rows = [[name, str(value)] for name, value in facts.items()]
    return Section("Model and sizes", [Table(("fact", "value"), rows)], missing=report["missing"].get("exports"))


def _describe_training(report: dict[str, Any], missing: str | None) -> Section:
    rows, title = report["training"], "Export" if report["exported"] else "Training"
    section = Section(title, missing=missing)
    if report["facts"]:
        facts = [[name, str(value)] for name, value in report["facts"].items()]
        section.tables.append(Table(("result", "value"), facts))
    if rows:
        section.figure = partial(draw_training, rows=rows)
        section.height = 4.2 + 1.6 * len(find_compared(rows))
    return section


def _describe_scores(report: dict[str, Any], missing: str | None) -> list[Section]:
    tables = []
    for result in report["scores"] or []:
        head, rows = score_tables.list_cells(result)
        grey = frozenset(i for i, sure in enumerate(score_tables.list_above_chance(result)) if sure is False)
        rows = [[f"{c} (chance)" if n == 1 and i in grey else c for n, c in enumerate(r)] for i, r in enumerate(rows)]
        empty = {
            n for n in range(len(head)) if all(row[n] == "-" for row in rows)
        }  # published for none of these tasks
        facts = [f for f in score_tables.list_facts(result) if f.partition(":")[0] not in {head[n] for n in empty}]
        head, *rows = [[cell for n, cell in enumerate(row) if n not in empty] for row in (head, *rows)]
        tables.append(Table(head, rows, [f"{result['suite']} suite.", *facts], grey))
    if report["held_out"]:
        rows = [[n, format_score(v, n), MEANINGS.get(n, "")] for n, v in report["held_out"].items()]
        tables.append(Table(("held-out questions", "score", "what"), rows))
    return [Section("Scores", tables, missing=missing)]


def _describe_perplexity(result: dict[str, Any] | None, missing: str | None) -> Section:
    section = Section("Perplexity", missing=missing)
    if result is not None:
        files = ", ".join(Path(name).name for name in result["files"])
        section.tables = [
            Table(
                perplexity_tables.HEAD,
                perplexity_tables.list_attention_cells(result),
                [f"Texts: {files}.", *perplexity_tables.list_facts(result)],
            ),
            Table(*perplexity_tables.list_position_cells(result)),
        ]
        section.figure = partial(perplexity_tables.draw_positions, result=result)
    return section


def _describe_speed(speed: dict[str, Any]) -> Section:
    machine = speed["machine"]
    rows = [
        [
            f"{row['depth']:,}",
            "-" if row["prefill_tok_s"] is None else f"{row['prefill_tok_s']:,.0f}",
            f"{row['decode_tok_s']:,.0f}",
            f"{row['first_token_ms']:,.1f}",
            f"{row['state_mib']:,.2f}",
        ]
        for row in speed["rows"]
    ]
    head = ("tokens before", "prompt, tokens/s", "decoding, tokens/s", "first token, ms", "state, MiB")
    where = f"One sequence, on {machine['processor']}, {machine['instructions']}, {speed['threads']} threads."
    return Section("Speed", [Table(head, rows, [where, "A short measurement; small-doge bench makes a longer one."])])


def _describe_samples(samples: dict[str, Any]) -> Section:
    how = ", ".join(f"{name} {value}" for name, value in samples["sampling"].items())
    texts = []
    for answer in samples["answers"]:
        texts.append((f"{'Asked' if samples['chat'] else 'Begun'}: {answer['prompt']}", ""))
        texts += [("the likeliest", answer["greedy"]), (f"drawn ({how})", answer["sampled"])]
    return Section("Samples", texts=texts, in_card=False)


def write_figures(report: dict[str, Any]) -> str:
    """Write the tables of a report for a model card."""
    parts = []
    for section in list_sections(report):
        if section.in_card and section.tables:
            parts += [f"## {section.title}", *_write_tables(section)]
    return "\n\n".join(parts)


def _write_tables(section: Section) -> list[str]:
    parts = []
    for table in section.tables:
        parts.append(write_table(table.head, table.rows))
        if table.notes:
            parts.append("\n".join(f"- {note}" for note in table.notes))
    return parts


def list_commands(report: dict[str, Any]) -> list[str]:
    """Return commands that use the model."""
    path = report["path"]
    use = "chat" if report["samples"]["chat"] else "generate"
    commands = [f"small-doge {use} {path}", f"small-doge serve {path}"]
    return commands if report["exported"] else [*commands, f"small-doge export {path}"]


def list_snippet(report: dict[str, Any]) -> str:
    """Return Python that loads the model."""
    path = report["path"]
    if report["exported"]:
        lines = ["from small_doge.inference import OnnxEngine", "", f'engine = OnnxEngine("{path}")']
        return "\n".join([*lines, 'print(engine.generate("Once upon a time", max_new_tokens=20))'])
    return "\n".join(
        [
            "import small_doge",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{path}")',
            f'model = AutoModelForCausalLM.from_pretrained("{path}")',
            'inputs = tokenizer("Once upon a time", return_tensors="pt")',
            "print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=20)))",
        ]
    )


def describe_origin(report: dict[str, Any]) -> str:
    """Say of which model and code the report is."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    return f"Model {report['model_hash']}, commit {report['commit'] or 'unknown'}, {versions}."


def is_report(path: Path) -> bool:
    """Tell whether a file is a report in Markdown, which ends with its origin."""
    if not path.is_file():
        return False
    *_, last = ["", *path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return re.fullmatch(r"Model \S+, commit .+, .+\.", last) is not None


def list_highlights(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the few figures that stand first."""
    sizes, facts, scores = report["sizes"], report["facts"] or {}, report["scores"] or []
    rows = [row for result in scores for row in result["rows"] if not row["is_further"]]
    fastest = max(row["decode_tok_s"] for row in report["speed"]["rows"])
    found = {
        "parameters": None if sizes["parameters"] is None else f"{sizes['parameters'] / 1e6:,.2f}M",
        "weights": f"{sum(sizes['weights'].values()) / 1e6:,.1f} MB",
        "held-out bits per byte": facts.get("held-out bits per byte"),
        "tokens/s, one sequence": f"{fastest:,.0f}",
        "scores above chance": f"{sum(row['above_chance'] for row in rows)} of {len(rows)}" if rows else None,
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def write_markdown(report: dict[str, Any], pictures: dict[str, str]) -> str:
    """Write a report in Markdown.

    Args:
        report: from `collect_report`.
        pictures: files of pictures, by the title of their section.
    """
    parts = [f"# {report['title']}"]
    for section in list_sections(report):
        parts.append(f"## {section.title}")
        if section.title in pictures:
            parts.append(f"![{section.title}]({pictures[section.title]})")
        parts += _write_tables(section)
        for heading, text in section.texts:
            parts.append(f"**{heading}**" if not text else f"{heading}:\n\n```text\n{text}\n```")
        if section.missing:
            parts.append(f"Not there yet. To make it: `{section.missing}`")
    parts += ["## Use", "```bash\n" + "\n".join(list_commands(report)) + "\n```"]
    parts.append(f"```python\n{list_snippet(report)}\n```")
    settings = report["settings"] or {}
    if settings:
        parts += ["## Settings", write_table(("setting", "value"), [[k, str(v)] for k, v in settings.items()])]
    parts += [f"Out of date, since the weights changed: {file}" for file in report["outdated"]]
    return "\n\n".join([*parts, describe_origin(report)]) + "\n"


def write_page(report: dict[str, Any]) -> str:
    """Write a report as one page that needs nothing else."""
    sections = list_sections(report)
    drawn = {
        section.title: Markup(draw_svg(section.figure, FIGURE_WIDTH, section.height, section.title))
        for section in sections
        if section.figure is not None
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(
        report=report,
        sections=sections,
        highlights=list_highlights(report),
        drawn=drawn,
        commands=list_commands(report),
        snippet=list_snippet(report),
        settings=report["settings"] or {},
        origin=describe_origin(report),
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ report.title }}</title><style>
:root { --text: #1d2125; --page: #fff; --line: #d8dde3; --soft: #f2f4f7; --faint: #667079; --link: #0b62c4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7ea; --page: #15181b; --line: #363c43; --soft: #1f2429; --faint: #98a2ab; --link: #79b4ff; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; color: var(--text); background: var(--page); }
h1 { margin: 0; overflow-wrap: anywhere; } h2 { margin: 2.2rem 0 .6rem; } a { color: var(--link); }
.key { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; } .key div { background: var(--soft); border-radius: .4rem; padding: .5rem .9rem; }
.key b, .key span { display: block; } .key b { font-size: 1.15rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0; } .faint { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .facts td, .facts th { text-align: left; } th { white-space: normal; } td { white-space: nowrap; }
.facts td { white-space: normal; overflow-wrap: anywhere; } tr.grey td { color: var(--faint); }
ul { padding-left: 1.2rem; } li { overflow-wrap: anywhere; } figure { margin: 1rem 0; max-width: 40rem; } svg { width: 100%; height: auto; }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: .4rem; overflow-x: auto; font-size: .86rem; margin: .3rem 0 .8rem; }
.sample pre { white-space: pre-wrap; overflow-wrap: anywhere; } .missing { border-left: 3px solid var(--line); padding-left: .8rem; }
code { overflow-wrap: anywhere; }
</style></head><body>
<h1>{{ report.title }}</h1>
<p class="faint">{{ report.stage or "A model" }}, by <a href="https://github.com/SmallDoges/small-doge">SmallDoge</a></p>
<div class="key">{% for name, value in highlights %}<div><b>{{ value }}</b><span class="faint">{{ name }}</span></div>{% endfor %}</div>
<nav>{% for section in sections %}<a href="#{{ section.title|replace(' ', '-') }}">{{ section.title }}</a>{% endfor %}<a href="#Use">Use</a></nav>
{% for section in sections %}
<h2 id="{{ section.title|replace(' ', '-') }}">{{ section.title }}</h2>
{% if section.title in drawn %}<figure>{{ drawn[section.title] }}</figure>{% endif %}
{% for table in section.tables %}
<div class="wide{{ ' facts' if table.head|length < 4 }}"><table><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr{{ ' class=grey' if loop.index0 in table.grey }}>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% if table.notes %}<details open><summary class="faint">Notes</summary><ul class="faint">{% for note in table.notes %}<li>{{ note }}</li>{% endfor %}</ul></details>{% endif %}
{% endfor %}
{% for heading, text in section.texts %}{% if text %}<div class="sample"><span class="faint">{{ heading }}</span><pre>{{ text }}</pre></div>{% else %}<h3>{{ heading }}</h3>{% endif %}{% endfor %}
{% if section.missing %}<p class="missing faint">Not there yet. To make it: <code>{{ section.missing }}</code></p>{% endif %}
{% endfor %}
<h2 id="Use">Use</h2>
<pre>{{ commands|join("\n") }}</pre><pre>{{ snippet }}</pre>
{% if settings %}<details><summary>Settings</summary><div class="wide facts"><table>{% for name, value in settings.items() %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table></div></details>{% endif %}
{% for file in report.outdated %}<p class="missing faint">Out of date, since the weights changed: {{ file }}</p>{% endfor %}
<p class="faint">{{ origin }}</p>
</body></html>
"""
