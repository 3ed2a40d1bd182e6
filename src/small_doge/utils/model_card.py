"""The README.md of a trained model."""

from typing import Any


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
        *_table("Result", facts),
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
        *_table("Setting", settings),
    ]
    return "\n".join(lines)


def _table(name: str, rows: dict[str, Any]) -> list[str]:
    return [f"| {name} | Value |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]
