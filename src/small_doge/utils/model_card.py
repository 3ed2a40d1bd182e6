"""The README.md of a trained model."""

from collections.abc import Sequence
from typing import Any

import yaml

from .markdown import write_table


# Around the figures of a card, which `small-doge report` writes anew; all else is its owner's.
FIGURES_BEGIN = "<!-- Figures: small-doge report writes these lines anew. -->"
FIGURES_END = "<!-- End of the figures. -->"
PAPERS = """## Architecture and citation

Doge is a decoder with dynamic mask attention, which looks back at the tokens that score highest alone, and in its MoE form with a cross
domain mixture of experts beside each dense layer. The papers behind both:

```bibtex
@misc{shi2024wonderfulmatrices,
  title={Wonderful Matrices: Combining for a More Efficient and Effective Foundation Model Architecture},
  author={Jingze Shi and Bingheng Wu},
  year={2024},
  eprint={2412.11834},
  archivePrefix={arXiv},
  url={https://arxiv.org/abs/2412.11834}
}

@misc{shi2025dynamicmask,
  title={Trainable Dynamic Mask Sparse Attention},
  author={Jingze Shi and Yifan Wu and Bingheng Wu and Yiran Peng and Liangdong Wang and Guang Liu and Yuyu Luo},
  year={2025},
  eprint={2508.02124},
  archivePrefix={arXiv},
  url={https://arxiv.org/abs/2508.02124}
}
```
"""


def build_model_card(
    title: str,
    stage: str,
    facts: dict[str, Any],
    settings: dict[str, Any],
    usage_path: str,
    picture: str | None = None,
    trust_code: bool = False,
    datasets: Sequence[str] = (),
    base_model: str | None = None,
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
        datasets: names on the hub of what it was trained on.
        base_model: name on the hub of the model that it goes on from.
    """
    lines = [
        *_write_header(datasets, base_model),
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
        PAPERS,
    ]
    return "\n".join(lines)


def _write_header(datasets: Sequence[str], base_model: str | None) -> list[str]:
    """Write what the hub reads of a card."""
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    header["tags"] = ["doge", "small-doge"]
    if datasets:
        header["datasets"] = list(datasets)
    if base_model is not None:
        header["base_model"] = base_model
    return ["---", yaml.safe_dump(header, sort_keys=False).strip(), "---"]


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
