"""Small copies of the published guides' data sets, with the hub's layout and column names."""

import pandas as pd


CARDS = {
    "HuggingFaceTB/smollm-corpus": {
        "fineweb-edu-dedup": ("fineweb-edu-dedup/train-*", "train"),
        "cosmopedia-v2": ("cosmopedia-v2/train-*", "train"),
        "python-edu": ("python-edu/train-*", "train"),
    },
    "HuggingFaceTB/finemath": {"finemath-4plus": ("finemath-4plus/train-*", "train")},
    "roneneldan/TinyStories": {"default": ("data/train-*", "train")},
    "HuggingFaceTB/everyday-conversations-llama3.1-2k": {"default": ("data/train_sft-*", "train_sft")},
    "HuggingFaceTB/smoltalk": {"all": ("data/all/train-*", "train")},
    "HuggingFaceH4/ultrafeedback_binarized": {"default": ("data/train_prefs-*", "train_prefs")},
    "bespokelabs/Bespoke-Stratos-17k": {"default": ("data/train-*", "train")},
    "AI-MO/NuminaMath-TIR": {"default": ("data/train-*", "train")},
    "open-thoughts/OpenThoughts-114k": {"default": ("data/train-*", "train")},
    "open-r1/OpenR1-Math-220k": {"default": ("data/train-*", "train")},
}
SPLITS = {name: configs["default"][1] for name, configs in CARDS.items() if "default" in configs}


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def trace(i):
    return f"<|begin_of_thought|>\n\nI add {i} and 1.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nIt is {i + 1}.\n\n<|end_of_solution|>"


def shared_gpt(i):
    return {
        "system": "Think first.",
        "conversations": [{"from": "user", "value": f"What is {i} + 1?"}, {"from": "assistant", "value": trace(i)}],
    }


def preference(i):
    question = f"Name the number {i}."
    return {
        "prompt": question,
        "prompt_id": str(i),
        "chosen": turns(question, f"It is {i}."),
        "rejected": turns(question, "No."),
        "messages": turns(question, f"It is {i}."),
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    }


ROWS = {
    "HuggingFaceTB/smollm-corpus/fineweb-edu-dedup": lambda i: {
        "text": f"Lesson {i} about rivers and the sea.",
        "id": str(i),
        "metadata": {"dump": "CC", "url": "u", "language_score": 0.9},
    },
    "HuggingFaceTB/smollm-corpus/cosmopedia-v2": lambda i: {
        "prompt": f"Write about the number {i}.",
        "text": f"The number {i} is a fine number.",
        "token_length": 9,
        "audience": "children",
        "format": "story",
        "seed_data": "s",
    },
    "HuggingFaceTB/smollm-corpus/python-edu": lambda i: {
        "blob_id": f"{i:040d}",
        "repo_name": "a/b",
        "path": f"/f{i}.py",
        "length_bytes": 20,
        "score": 4.2,
        "int_score": 4,
    },
    "HuggingFaceTB/finemath/finemath-4plus": lambda i: {
        "text": f"Theorem {i}: {i} < {i + 1}.",
        "url": "u",
        "score": 4,
    },
    "roneneldan/TinyStories/data": lambda i: {"text": f"One day, Tom found {i} red balls. He was happy."},
    "HuggingFaceTB/everyday-conversations-llama3.1-2k/data": lambda i: {
        "topic": "numbers",
        "messages": [*turns("Hi!", "Hello! How can I help you?"), *turns(f"What is after {i}?", f"It is {i + 1}.")],
    },
    "HuggingFaceTB/smoltalk/data/all": lambda i: {"messages": turns(f"Hello {i}", f"Good day {i}"), "source": "s"},
    "HuggingFaceH4/ultrafeedback_binarized/data": preference,
    "bespokelabs/Bespoke-Stratos-17k/data": shared_gpt,
    "AI-MO/NuminaMath-TIR/data": lambda i: {
        "problem": f"What is {i} + 1?",
        "solution": f"We add. \\boxed{{{i + 1}}}",
        "messages": turns(f"What is {i} + 1?", f"We add. \\boxed{{{i + 1}}}"),
    },
    "open-thoughts/OpenThoughts-114k/data": shared_gpt,
    "open-r1/OpenR1-Math-220k/data": lambda i: {
        "problem": f"What is {i} + 1?",
        "solution": "We add.",
        "answer": str(i + 1),
        "generations": [f"<think>\nI add.\n</think>\n\nIt is {i + 1}."],
        "messages": turns(f"What is {i} + 1?", f"<think>\nI add.\n</think>\n\nIt is {i + 1}."),
    },
}


def build_hub(root, rows=24, files=2):
    """Write every copy under `root`, owner/name/..., several files each."""
    for name, configs in CARDS.items():
        lines = ["---", "configs:"]
        for config, (path, split) in configs.items():
            lines += [f"- config_name: {config}", "  data_files:", f"  - split: {split}", f"    path: {path}"]
            if config in ("default", "all"):
                lines.append("  default: true")
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "README.md").write_text("\n".join([*lines, "---", "# A copy"]))
    for folder, make in ROWS.items():
        owner, name, *_ = folder.split("/")
        split = SPLITS.get(f"{owner}/{name}", "train")
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(files):
            frame = pd.DataFrame([make(i) for i in range(number, rows, files)])
            frame.to_parquet(root / folder / f"{split}-{number:05d}-of-{files:05d}.parquet")
    return root
