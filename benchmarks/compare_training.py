"""Train ours and `transformers`' model side by side on a prepared data set: same weights, rows, steps; do curves agree?

The peer can't read packed rows, so it gets the same documents as a padded batch; the loss counts the same tokens.
"""

import argparse

import torch
import yaml
from common import build_pair, report
from datasets import load_from_disk

from small_doge import DogeConfig
from small_doge.processor.packing import PackedCollator


def pad_documents(rows: list[dict]) -> dict[str, torch.Tensor]:
    """[documents, longest] `input_ids`, `attention_mask` and `labels` of the documents in packed rows."""
    documents = []
    for row in rows:
        start = 0
        for length in row["seq_lengths"]:
            documents.append(torch.tensor(row["input_ids"][start : start + length]))
            start += length
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(documents, batch_first=True)
    mask = pad([torch.ones_like(d) for d in documents], batch_first=True)
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Folder that a run prepared: OUTPUT/data/prepared-*")
    parser.add_argument("--recipe", required=True, help="Recipe of that run, for the model")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=2, help="Rows a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=233)
    args = parser.parse_args()
    with open(args.recipe, encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    torch.manual_seed(args.seed)
    pair = build_pair(DogeConfig.from_preset(recipe["model_preset"], **recipe.get("model_overrides", {})))
    optimizers = {name: torch.optim.AdamW(model.train().parameters(), lr=args.lr) for name, model in pair.items()}
    data = load_from_disk(args.data)["train"]
    rows = []
    for step in range(args.steps):
        chosen = [data[step * args.rows + i] for i in range(args.rows)]
        row = {"step": step}
        for name, model in pair.items():
            batch = PackedCollator()(chosen) if name == "ours" else pad_documents(chosen)
            loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizers[name].param_groups:
                group["lr"] = args.lr * min(1.0, (step + 1) / 20)
            optimizers[name].step()
            optimizers[name].zero_grad()
            row[name] = loss.item()
        row["difference"] = abs(row["ours"] - row["peer"])
        if step % 10 == 0 or step == args.steps - 1:
            print(row, flush=True)
        rows.append(row)
    largest = max(rows, key=lambda r: r["difference"])
    report(
        "compare_training",
        [
            *rows[:: max(1, args.steps // 10)],
            rows[-1],
            {**largest, "step": f"largest difference, step {largest['step']}"},
        ],
    )


if __name__ == "__main__":
    main()
