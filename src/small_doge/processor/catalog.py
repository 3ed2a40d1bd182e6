"""The public data sets that the published guides train on, by short names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicDataset:
    """What there is to know of a data set before it is fetched. Rows and sizes are those that its card states, rounded.

    Args:
        hub_name: `owner/name` on the hub.
        subset: its configuration.
        split: the split to train on.
        stage: the stage it serves: pretrain, sft, dpo, distill, grpo.
        fields: the columns that are read.
        licence: as its card states it.
        rows: of that split.
        gigabytes: to download.
        note: what else to know.
    """

    hub_name: str
    subset: str | None
    split: str
    stage: str
    fields: tuple[str, ...]
    licence: str
    rows: int
    gigabytes: float
    note: str = ""


CATALOG: dict[str, PublicDataset] = {
    "fineweb-edu": PublicDataset(
        "HuggingFaceTB/smollm-corpus",
        "fineweb-edu-dedup",
        "train",
        "pretrain",
        ("text",),
        "ODC-BY",
        190_000_000,
        550,
        "educational web pages, deduplicated",
    ),
    "cosmopedia-v2": PublicDataset(
        "HuggingFaceTB/smollm-corpus",
        "cosmopedia-v2",
        "train",
        "pretrain",
        ("prompt", "text"),
        "ODC-BY",
        39_000_000,
        120,
        "textbooks and stories written to a prompt, which can become a user's turn",
    ),
    "python-edu": PublicDataset(
        "HuggingFaceTB/smollm-corpus",
        "python-edu",
        "train",
        "pretrain",
        ("blob_id",),
        "ODC-BY; each file under its own",
        7_700_000,
        0.6,
        "the hub holds numbers of files; their texts come from the Software Heritage archive",
    ),
    "finemath": PublicDataset(
        "HuggingFaceTB/finemath",
        "finemath-4plus",
        "train",
        "pretrain",
        ("text",),
        "ODC-BY",
        6_700_000,
        20,
        "mathematical web pages",
    ),
    "TinyStories": PublicDataset(
        "roneneldan/TinyStories",
        None,
        "train",
        "pretrain",
        ("text",),
        "CDLA-Sharing-1.0",
        2_100_000,
        1,
        "short stories in the words of a small child, from which models of a few million parameters learn to write",
    ),
    "smoltalk": PublicDataset(
        "HuggingFaceTB/smoltalk",
        "all",
        "train",
        "sft",
        ("messages",),
        "Apache-2.0",
        1_000_000,
        2,
        "instructions and conversations",
    ),
    "everyday-conversations": PublicDataset(
        "HuggingFaceTB/everyday-conversations-llama3.1-2k",
        None,
        "train_sft",
        "sft",
        ("messages",),
        "Apache-2.0",
        2_200,
        0.001,
        "short conversations about everyday life and elementary science, written by a model",
    ),
    "ultrafeedback_binarized": PublicDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        None,
        "train_prefs",
        "dpo",
        ("prompt", "chosen", "rejected"),
        "MIT",
        61_000,
        0.3,
        "preferences; for SFT the chosen answers",
    ),
    "Bespoke-Stratos-17k": PublicDataset(
        "bespokelabs/Bespoke-Stratos-17k",
        None,
        "train",
        "distill",
        ("system", "conversations"),
        "Apache-2.0",
        17_000,
        0.3,
        "a teacher's reasoning",
    ),
    "NuminaMath-TIR": PublicDataset(
        "AI-MO/NuminaMath-TIR",
        None,
        "train",
        "grpo",
        ("problem", "solution", "messages"),
        "Apache-2.0",
        72_000,
        0.2,
        "problems with worked solutions",
    ),
    "OpenThoughts-114k": PublicDataset(
        "open-thoughts/OpenThoughts-114k",
        None,
        "train",
        "distill",
        ("system", "conversations"),
        "Apache-2.0",
        114_000,
        3,
        "a teacher's reasoning",
    ),
    "OpenR1-Math-220k": PublicDataset(
        "open-r1/OpenR1-Math-220k",
        "default",
        "train",
        "grpo",
        ("problem", "solution", "answer", "messages"),
        "Apache-2.0",
        94_000,
        2,
        "problems with answers to verify and a teacher's reasoning",
    ),
}


def find_by_hub_name(hub_name: str, subset: str | None) -> PublicDataset | None:
    """Return the catalogue's entry of a hub name, so that `owner/name:subset` is read like its short name."""
    for entry in CATALOG.values():
        if entry.hub_name == hub_name and (subset is None or entry.subset == subset):
            return entry
    return None
