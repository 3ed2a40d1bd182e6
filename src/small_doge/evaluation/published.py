"""Figures that others published, with their sources. None was run again, and what no source at hand states is left out."""

from typing import Any


BASE = ("MMLU", "TriviaQA", "ARC", "PIQA", "HellaSwag", "OBQA", "Winogrande")
CHAT = ("IFEval", "MMLU", "BBH", "ARC", "PIQA", "HellaSwag")
GUIDE = "SmallDoge's README"
SPEED = "tokens per second on an i7-11 CPU, SmallDoge's README"
SMOL = "model card of HuggingFaceTB/SmolLM2-135M: lighteval, zero-shot but for GSM8K, after 2T tokens"
PYTHIA = (
    "EleutherAI/pythia, evals/pythia-v1/pythia-160m/five-shot, step 143,000 (ARC, PIQA, Winogrande, 5-shot); paper of MobileLLM "
    "(arXiv 2402.14905), zero-shot (HellaSwag, OBQA)"
)
MOBILE = (
    "paper of MobileLLM (arXiv 2402.14905), zero-shot, after 1T tokens; its repository has the same figures under headings that "
    "are shifted"
)
GPT2 = (
    "karpathy/build-nanogpt, hellaswag.py: the harness's acc_norm, zero-shot; no source at hand states the other tasks"
)


def _entry(
    source: str, shots: dict[str, int], figures: dict[str, float], speed: float | None = None
) -> dict[str, Any]:
    return {"source": source, "shots": shots, "figures": figures, "speed": speed}


_BASE_SHOTS = {"MMLU": 5, "TriviaQA": 5, "ARC": 5, "PIQA": 5}  # none elsewhere
# Of each model: the source, examples before each item where there are any, scores in percent, and tokens per second.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "base": {
        "Doge-20M": _entry(
            GUIDE, _BASE_SHOTS, dict(zip(BASE, (25.4, 0.03, 29.8, 58.4, 27.3, 25.6, 50.2), strict=True)), 142
        ),
        "Doge-60M": _entry(
            GUIDE, _BASE_SHOTS, dict(zip(BASE, (26.4, 0.2, 37.9, 61.4, 31.5, 28.0, 50.8), strict=True)), 62
        ),
        "Doge-160M": _entry(
            GUIDE, _BASE_SHOTS, dict(zip(BASE, (29.2, 4.8, 44.4, 66.3, 38.7, 34.4, 52.2), strict=True)), 28
        ),
        "SmolLM2-135M": _entry(SMOL, {}, dict(zip(BASE, (31.5, 4.1, 43.9, 68.4, 42.1, 34.6, 51.3), strict=True))),
        "Pythia-160M": _entry(
            PYTHIA,
            {"ARC": 5, "PIQA": 5, "Winogrande": 5},
            {"ARC": 32.3, "PIQA": 61.5, "HellaSwag": 29.9, "OBQA": 31.2, "Winogrande": 50.7},
        ),
        "MobileLLM-125M": _entry(
            MOBILE, {}, {"ARC": 35.5, "PIQA": 65.3, "HellaSwag": 38.9, "OBQA": 39.5, "Winogrande": 53.1}
        ),
        "GPT-2": _entry(GPT2, {}, {"HellaSwag": 31.1}),
    },
    "instruct": {
        "Doge-20M-Instruct": _entry(
            GUIDE, {"BBH": 3}, dict(zip(CHAT, (7.3, 26.3, 18.3, 29.2, 57.8, 27.8), strict=True)), 142
        ),
        "Doge-60M-Instruct": _entry(
            GUIDE, {"BBH": 3}, dict(zip(CHAT, (7.4, 27.5, 27.7, 37.5, 61.4, 32.1), strict=True)), 62
        ),
        "Doge-160M-Instruct": _entry(
            GUIDE, {"BBH": 3}, dict(zip(CHAT, (16.8, 29.7, 29.1, 42.8, 64.1, 37.1), strict=True)), 28
        ),
    },
    "reason": {
        "SmolLM2-135M": _entry(f"{SMOL}; the base model, without a chat template", {"GSM8K": 5}, {"GSM8K": 1.4}),
    },
    "demo": {},
}


def find_figure(entry: dict[str, Any], row: str, shots: int) -> str:
    """Write the published figure of a row, with its number of examples where that is another; - where there is none."""
    figure = entry["figures"].get(row)
    if figure is None:
        return "-"
    published = entry["shots"].get(row, 0)
    return str(figure) if published == shots else f"{figure} ({published}-shot)"
