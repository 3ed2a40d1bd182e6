"""Tokenise-and-pack beside `datasets.map` and TRL's packing; memory of streaming and of training a tokenizer.

python benchmarks/bench_data.py [--texts FILE ...] [--megabytes 20] [--sizes 20 200] [--skip-memory]
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import measure_once, report
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer

from small_doge.processor.corpus import iterate_mixture
from small_doge.processor.data_config import DataConfig
from small_doge.processor.mix_reader import MixReader
from small_doge.processor.prepare import prepare
from small_doge.processor.sources import open_source
from small_doge.processor.stream import MixedStream
from small_doge.processor.tokenizer import train_tokenizer


LENGTH = 2048


def write_texts(path, megabytes, files):
    """JSON lines of about that size, of the given files over and over, or of the embedded corpus."""
    written = number = 0
    with open(path, "w", encoding="utf-8") as out:
        while written < megabytes * 2**20:
            for text in iterate_texts(files, number):
                line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
                written += len(line.encode())
                out.write(line)
                if written >= megabytes * 2**20:
                    break
            number += 1
    return str(path)


def iterate_texts(files, seed):
    if not files:
        yield from iterate_mixture(20_000, seed)
    for file in files:
        source = open_source(file)
        for file_range in source.ranges:
            for record in source.read(file_range):
                yield f"{record.row['text']}" + (f"\n\n{seed}" if seed else "")


def run_ours(path, tokenizer, folder):
    config = DataConfig([{path: 1.0}], max_length=LENGTH, cache_dir=tempfile.mkdtemp(dir=folder))
    return prepare(config, tokenizer)["train"]


def run_peer(path, tokenizer, folder):
    """`datasets.map` with the same tokens about each document, and TRL's packing that keeps all of them."""
    from trl import pack_dataset

    begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]

    def tokenize(batch):
        ids = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return {"input_ids": [begin + document + end for document in ids]}

    rows = Dataset.from_json(path, cache_dir=tempfile.mkdtemp(dir=folder))
    rows = rows.map(tokenize, batched=True, remove_columns=rows.column_names)
    return pack_dataset(rows, LENGTH, "bfd_split")


def count_tokens(rows):
    counts = Counter()
    for ids in rows["input_ids"]:
        counts.update(ids)
    return counts


def compare_speed(path, tokenizer, folder, rounds):
    """Least seconds of each, in turn, and whether the tokens are the same."""
    best, results = {}, {}
    for _ in range(rounds):
        for name, run in (("ours", run_ours), ("peer", run_peer)):
            start = time.perf_counter()
            results[name] = run(path, tokenizer, folder)
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
    same = count_tokens(results["ours"]) == count_tokens(results["peer"])
    fill = {name: sum(map(len, rows["input_ids"])) / (len(rows) * LENGTH) for name, rows in results.items()}
    tokens = sum(map(len, results["ours"]["input_ids"]))
    return best, same, fill, tokens


def prepare_streaming(path, tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    reader = MixReader(DataConfig([{path: 1.0}], max_length=LENGTH), tokenizer)
    tokenizer("warm")

    def run():
        for _ in MixedStream(reader):
            pass

    return run


def prepare_tokenizer_training(path):
    def texts():
        source = open_source(path)
        for file_range in source.ranges:
            for record in source.read(file_range):
                yield record.row["text"]

    return lambda: train_tokenizer(texts(), 32768)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", nargs="*", default=[], help="Files with texts; the embedded corpus if none.")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs=2, default=[20, 200])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--skip-memory", action="store_true")
    args = parser.parse_args()
    disable_progress_bars()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(iterate_texts(args.texts, 0), 32768)
        tokenizer.save_pretrained(Path(folder) / "tokenizer")
        path = write_texts(Path(folder) / "speed.jsonl", args.megabytes, args.texts)
        best, same, fill, tokens = compare_speed(path, tokenizer, folder, args.rounds)
        rows.append(
            {
                "work": f"tokenise and pack, {args.megabytes} MiB",
                "ours tok/s": tokens / best["ours"],
                "peer tok/s": tokens / best["peer"],
                "ratio": best["peer"] / best["ours"],
                "same tokens": same,
                "ours fill": fill["ours"],
                "peer fill": fill["peer"],
            }
        )
        for size in [] if args.skip_memory else args.sizes:
            file = write_texts(Path(folder) / f"{size}.jsonl", size, args.texts)
            peak, seconds = measure_once(prepare_streaming, file, str(Path(folder) / "tokenizer"))
            rows.append({"work": f"stream, {size} MiB", "peak MiB": peak, "seconds": seconds})
        if not args.skip_memory:
            peak, seconds = measure_once(prepare_tokenizer_training, file)
            rows.append({"work": f"train a tokenizer, {size} MiB", "peak MiB": peak, "seconds": seconds})
    report("data", rows)


if __name__ == "__main__":
    main()
