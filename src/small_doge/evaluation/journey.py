"""What each stage of a pipeline added: the same questions after every stage, and a report with pictures."""

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..models import load_model
from ..processor.messages import find_first, read_text
from ..processor.readers import split_file
from ..processor.row_schemas import RESULT_FIELDS
from ..utils.errors import UserError
from ..utils.files import write_json, write_text
from ..utils.hardware import describe_device
from ..utils.model_folder import load_tokenizer
from ..utils.paths import find_near_names
from ..utils.plots import saved_figure
from .held_out import answer_all, measure
from .provenance import hash_model
from .tasks.scorers import is_direct, verify_value


SCORES = "scores.json"
PICTURE = "journey.png"
IN_NATS = {"margin"}
MEANINGS = {
    "questions": "about the embedded world, answered right in the first line",
    "problems": "sums and differences whose likeliest answer is right",
    "drawn": "the same problems, an answer drawn from the model is right",
    "direct": "answers of one line that end by themselves, a thought before them aside",
    "preferences": "pairs of answers of which the better one is likelier",
    "margin": "by how many nats it is likelier, mean of the pairs",
    "questions right": "numbers and formulas are verified, other answers must be said in whole words",
    "direct answers": "of one line that end by themselves, a thought before them aside",
}
QUESTION_FIELDS = ("question", "problem", "prompt")

# Of the embedded corpus, the problems held out: what is asked to show how answers change.
SHOWN_QUESTIONS = (
    "Where does Mia live?",
    "Who are you?",
    "What is 41 + 52?",
    "Sara has 23 lamps. Rob gives Sara 11 more. How many lamps does Sara have now?",
)


@dataclass(frozen=True)
class Result:
    """What is known of a stage that is done.

    Args:
        name: of the stage.
        scores: by name; shares are between 0 and 1.
        samples: answers by question.
        facts: that the stage wrote of itself: tokens, seconds, losses.
        picture: its curves, if there are any.
    """

    name: str
    scores: dict[str, float]
    samples: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    picture: Path | None = None

    @property
    def seconds(self) -> int:
        """Of its run, or of what came after its last resume."""
        return self.facts.get("seconds", self.facts.get("seconds since the last resume", 0))


def read_questions(path: Path) -> list[tuple[str, str | None]]:
    """Questions and reference answers of a file of JSON lines. A question without an answer is asked and shown, not scored.

    Raises:
        ValueError: no such file, or a line without a question.
    """
    if not path.is_file():
        raise UserError(f"--questions {path}: there is no such file{find_near_names(path)}")
    rows = []
    records = (record for file_range in split_file(str(path)) for record in file_range.read())
    for number, record in enumerate(records, 1):
        try:
            if record.row is None:
                raise ValueError(record.problem)
            question = read_text(find_first(record.row, QUESTION_FIELDS)[1], "question")
            answer = find_first(record.row, RESULT_FIELDS)[1]
            rows.append((question, None if answer is None else read_text(answer, RESULT_FIELDS[0])))
        except (ValueError, AttributeError, TypeError):
            why = record.problem or "no question"
            raise UserError(f"--questions {path}, row {number}: {why}") from None
    if not rows:
        raise UserError(f"--questions {path}: the file is empty")
    return rows


def score_questions(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[tuple[str, str | None]], chat: bool
) -> dict[str, float]:
    """Return the share of right answers to one's own questions: numbers and formulas are verified, other answers must be said in whole words.

    Questions without a reference count for the share of direct answers alone.
    """
    answers = answer_all(model, tokenizer, [question for question, _ in questions], chat)
    right = [
        verify_value({"final": reference}, [answer.text])["exact_match"]
        for answer, (_, reference) in zip(answers, questions, strict=True)
        if reference is not None
    ]
    scores = {"questions right": sum(right) / len(right)} if right else {}
    return {**scores, "direct answers": sum(is_direct(answer.text, answer.ended) for answer in answers) / len(answers)}


def measure_stage(folder: Path, chat: bool, questions: Sequence[tuple[str, str | None]] | None) -> dict[str, Any]:
    """Measure scores and samples of a finished stage, kept in its folder so that they are made once for these weights.

    Args:
        folder: of the stage.
        chat: whether it has learnt to chat.
        questions: one's own, in place of those of the embedded corpus.
    """
    shown = [question for question, _ in questions[: len(SHOWN_QUESTIONS)]] if questions else list(SHOWN_QUESTIONS)
    path = folder / SCORES
    asked = json.dumps([chat, shown, questions])
    of = {"model_hash": hash_model(str(folder)), "questions_hash": hashlib.sha256(asked.encode()).hexdigest()[:16]}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if of.items() <= kept.items():
            return kept
    model = load_model(AutoModelForCausalLM, folder).eval()
    tokenizer = load_tokenizer(folder, "the tokenizer of")
    if questions is None:
        scores = asdict(measure(model, tokenizer, chat))
    else:
        scores = score_questions(model, tokenizer, questions, chat)
    answers = answer_all(model, tokenizer, shown, chat)
    found = {
        **of,
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "samples": {question: answer.text for question, answer in zip(shown, answers, strict=True)},
    }
    write_json(path, found)
    return found


def write_report(output: Path, title: str, results: Sequence[Result], versions: dict[str, str]) -> Path:
    """Write `report.html`, which can be read alone, and `report.md` beside the pictures; return the page.

    Args:
        output: folder of the pipeline.
        title: heading.
        results: of the stages, in their order.
        versions: of what was used.
    """
    names = list(dict.fromkeys(name for result in results for name in result.scores))
    plot_journey(results, names, output / PICTURE)
    machine = describe_device()
    content = {
        "title": title,
        "results": results,
        "names": names,
        "meanings": {name: MEANINGS[name] for name in names if name in MEANINGS},
        "gains": _find_gains(results, names),
        "questions": list(results[0].samples) if results else [],
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        "versions": versions,
        "seconds": sum(result.seconds for result in results),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(embed=_embed, score=format_score, clock=_format_seconds)
    write_text(output / "report.html", environment.from_string(PAGE).render(content, journey=output / PICTURE))
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    plain.filters.update(
        score=format_score, clock=_format_seconds, relative=lambda path: path.relative_to(output).as_posix()
    )
    write_text(output / "report.md", plain.from_string(MARKDOWN).render(content, journey=output / PICTURE))
    return output / "report.html"


def plot_journey(results: Sequence[Result], names: Sequence[str], path: Path) -> None:
    """Plot each share by stage, as a PNG."""
    with saved_figure(path, 8, 4) as figure:
        axes = figure.subplots()
        for name in names:
            values = [result.scores.get(name) for result in results]
            if name not in IN_NATS:
                axes.plot(
                    [r.name for r in results], [float("nan") if v is None else v for v in values], "o-", label=name
                )
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share")
        axes.set_title("Held-out scores after each stage")
        axes.grid(alpha=0.3)
        if names:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _find_gains(results: Sequence[Result], names: Sequence[str]) -> list[dict[str, float]]:
    """Return what each stage changed, against the stage before it, rounded as it is shown."""
    gains: list[dict[str, float]] = [{}]
    for before, after in itertools.pairwise(results):
        shared = [name for name in names if name in before.scores and name in after.scores]
        gains.append({name: _round_as_shown(after.scores[name] - before.scores[name], name) for name in shared})
    return gains


def _embed(path: Path | None) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() if path else ""


def _round_as_shown(value: float, name: str) -> float:
    return round(value, 1 if name in IN_NATS else 2) + 0.0  # a loss too small to show is no "-0%"


def format_score(value: float | None, name: str, sign: bool = False) -> str:
    """Format a score as it is shown: shares in percent, what is counted in nats with one digit."""
    if value is None:
        return ""
    return f"{value:{'+' if sign else ''}{'.1f' if name in IN_NATS else '.0%'}}"


def _format_seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes}:{seconds:02d}"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .4rem .6rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .text td { text-align: left; }
small.up { color: #18794e; } small.down { color: #b42318; } img { max-width: 100%; }
pre { white-space: pre-wrap; margin: 0; font-size: .85rem; } .curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ results|length }} stages, {{ seconds|clock }} minutes of training, on {{ machine }}. The same held-out questions are asked after every stage.</p>
<table><tr><th>Stage</th>{% for name in names %}<th>{{ name }}</th>{% endfor %}<th>tokens</th><th>minutes</th></tr>
{% for result in results %}{% set gain = gains[loop.index0] %}
<tr><td>{{ result.name }}</td>{% for name in names %}<td>{{ result.scores.get(name)|score(name) }}{% if name in gain %} <small class="{{ 'up' if gain[name] > 0 else 'down' if gain[name] < 0 }}">{{ gain[name]|score(name, true) }}</small>{% endif %}</td>{% endfor %}
<td>{{ result.facts.tokens }}</td><td>{{ result.seconds|clock }}</td></tr>
{% endfor %}</table>
<p>{% for name, meaning in meanings.items() %}<b>{{ name }}</b>: {{ meaning }}. {% endfor %}</p>
<img src="{{ journey|embed }}" alt="Scores by stage">
<h2>Answers, stage by stage</h2>
{% for question in questions %}<h3>{{ question }}</h3><table class="text">
{% for result in results %}<tr><td>{{ result.name }}</td><td><pre>{{ result.samples[question] }}</pre></td></tr>{% endfor %}
</table>{% endfor %}
<h2>Curves</h2><div class="curves">
{% for result in results if result.picture %}<figure><img src="{{ result.picture|embed }}" alt="{{ result.name }}"></figure>{% endfor %}
</div>
<h2>Each stage of itself</h2>
{% for result in results %}<h3>{{ result.name }}</h3><table class="text">
{% for name, value in result.facts.items() if name != 'finished_at' %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table>{% endfor %}
<p>Versions: {% for name, version in versions.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}{% endfor %}</p>
</body></html>
"""

MARKDOWN = """# {{ title }}

{{ results|length }} stages, {{ seconds|clock }} minutes of training, on {{ machine }}. The same held-out questions are asked after every stage.

| Stage | {% for name in names %}{{ name }} | {% endfor %}tokens | minutes |
|---|{% for name in names %}---|{% endfor %}---|---|
{% for result in results %}
{% set gain = gains[loop.index0] %}
| {{ result.name }} | {% for name in names %}{{ result.scores.get(name)|score(name) }}{% if name in gain %} ({{ gain[name]|score(name, true) }}){% endif %} | {% endfor %}{{ result.facts.tokens }} | {{ result.seconds|clock }} |
{% endfor %}

{% for name, meaning in meanings.items() %}
- **{{ name }}**: {{ meaning }}
{% endfor %}

![Scores by stage]({{ journey|relative }})

## Answers, stage by stage

{% for question in questions %}
### {{ question }}

{% for result in results %}
{{ result.name }}:

```text
{{ result.samples[question] }}
```

{% endfor %}
{% endfor %}
## Curves

{% for result in results if result.picture %}
![{{ result.name }}]({{ result.picture|relative }})

{% endfor %}
Versions: {% for name, version in versions.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}{% endfor %}

"""
