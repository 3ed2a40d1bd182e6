"""The README.md of a trained model."""

from typing import Any

from .markdown import write_table


# Around the figures of a card, which `small-doge report` writes anew; all else is its owner's.
FIGURES_BEGIN = "<!-- Figures: small-doge report writes these lines anew. -->"
FIGURES_END = "<!-- End of the figures. -->"


def build_model_card(
    title: str,
    stage: str,
    facts: dict[str, Any],
    settings: dict[str, Any],
    usage_path: str,
    picture: str | None = None,
    trust_code: bool = False,
) -> str:
    """Build a model card in the hub's form.

    Args:
        title: heading.
        stage: what was done, in a few words.
        facts: results and sizes.
        settings: of the recipe.
        usage_path: folder or hub name for the snippet.
        picture: file of the loss curve, relative to the card.
        trust_code: the folder carries code that `transformers` needs.
    """
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [doge, small-doge]",
        "---",
        "",
        f"# {title}",
        "",
        f"{stage} with [SmallDoge](https://github.com/SmallDoges/small-doge).",
        "",
        *enclose_figures(write_table(("Result", "Value"), list_facts(facts))),
        "",
    ]
    if picture:
        lines += [f"![Loss and learning rate]({picture})", ""]
    lines += [
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{usage_path}")',
        f'model = AutoModelForCausalLM.from_pretrained("{usage_path}"{", trust_remote_code=True" if trust_code else ""})',
        'inputs = tokenizer("Hey how are you doing?", return_tensors="pt")',
        "print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=20)))",
        "```",
        "",
        "`import small_doge` before loading gives the faster attention and the bounded cache.",
        "",
        write_table(("Setting", "Value"), list_facts(settings)),
        "",
    ]
    return "\n".join(lines)


def list_facts(facts: dict[str, Any]) -> list[list[str]]:
    """Return facts as rows of a table."""
    return [[str(name), str(value)] for name, value in facts.items()]


def enclose_figures(figures: str) -> list[str]:
    """Return the lines of the figures of a card between their marks."""
    return [FIGURES_BEGIN, "", figures, "", FIGURES_END]


def replace_figures(card: str, figures: str) -> str | None:
    """Put new figures into a card; None if it has no place for them."""
    before, begin, rest = card.partition(FIGURES_BEGIN)
    _, end, after = rest.partition(FIGURES_END)
    if not begin or not end:
        return None
    return before + "\n".join(enclose_figures(figures)) + after
