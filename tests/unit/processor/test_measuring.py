"""Bytes behind bits per byte are those of the tokens that an evaluation scores."""

import copy
import json
import math

import pytest
import torch
from datasets import Dataset
from tests.chats import turns
from tests.conftest import build_tiny
from tokenizers import decoders

from small_doge.processor import ft_datasets_process, pt_datasets_process
from small_doge.processor.measuring import count_scored_bytes
from small_doge.processor.packing import PackedCollator
from small_doge.trainer.arguments import StageArguments
from small_doge.trainer.base import DogeTrainer


@pytest.fixture
def write(tmp_path):
    def call(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return call


@pytest.fixture
def mix(tiny_tokenizer, tmp_path):
    def call(door, path, **settings):
        settings = {"processing_class": tiny_tokenizer, "max_length": 64, "cache_dir": str(tmp_path / "c"), **settings}
        return door.mix_datasets_by_ratio([{path: 1.0}], **settings)["train"]

    return call


ANSWERS = ["Héllo 你好 🙂", "A much longer answer", "x"]


@pytest.mark.parametrize("settings", [{}, {"packing": True}, {"padding": True}, {"packing": "wrapped"}])
def test_of_conversations_the_bytes_of_the_answers_are_scored(mix, write, tiny_tokenizer, settings):
    path = write([{"messages": turns(f"A question of some length {i}", a)} for i, a in enumerate(ANSWERS)])
    rows = mix(ft_datasets_process, path, max_length=256, **settings)
    assert count_scored_bytes(rows, tiny_tokenizer) == sum(len(a.encode()) for a in ANSWERS)


@pytest.mark.parametrize("packing", [True, False, "wrapped"])
def test_of_texts_every_byte_is_scored(mix, write, tiny_tokenizer, packing):
    rows = mix(pt_datasets_process, write([{"text": a} for a in ANSWERS]), max_length=256, packing=packing)
    assert count_scored_bytes(rows, tiny_tokenizer) == sum(len(a.encode()) for a in ANSWERS)


def test_the_first_token_of_each_piece_and_what_is_cut_are_not_scored(mix, write, tiny_tokenizer):
    text = "é" * 40
    rows = mix(pt_datasets_process, write([{"text": text}]), max_length=16, packing="wrapped")
    total = sum(len(row["input_ids"]) for row in rows)
    assert total == len(tiny_tokenizer(text)["input_ids"]) + 1 and len(rows) > 2
    # The first row begins with the begin token; each of the others with a byte, half a letter maybe, that is not predicted.
    assert count_scored_bytes(rows, tiny_tokenizer) == len(text.encode()) - (len(rows) - 1)


def test_vocabularies_of_other_kinds_are_measured_by_their_texts(tiny_tokenizer):
    row = {"input_ids": tiny_tokenizer("Hello there")["input_ids"], "labels": None, "seq_lengths": []}
    row["seq_lengths"] = [len(row["input_ids"])]
    rows = Dataset.from_list([{k: v for k, v in row.items() if v is not None}])
    other = copy.deepcopy(tiny_tokenizer)
    other.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    assert count_scored_bytes(rows, other) == count_scored_bytes(rows, tiny_tokenizer) == len("Hello there")


def test_bits_per_byte_of_answers_are_those_of_the_answers_bytes(mix, write, tiny_tokenizer, tmp_path):
    path = write([{"messages": turns("A question of some length " * 2, a)} for a in ANSWERS])
    rows = mix(ft_datasets_process, path, max_length=256, packing=True)
    trainer = DogeTrainer(
        model=build_tiny(vocab_size=len(tiny_tokenizer), max_position_embeddings=256),
        args=StageArguments(output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True),
        eval_dataset=rows,
        data_collator=PackedCollator(),
        processing_class=tiny_tokenizer,
        settings={},
        eval_bytes=count_scored_bytes(rows, tiny_tokenizer),
    )
    metrics = trainer.evaluate()
    nats = 0.0
    for row in rows:
        batch = PackedCollator()([row])
        with torch.no_grad():
            logits = trainer.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        labels = batch["labels"][0, 1:]
        losses = torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels, ignore_index=-100, reduction="sum")
        nats += losses.item()
    expected = nats / math.log(2) / sum(len(a.encode()) for a in ANSWERS)
    assert metrics["eval_bits_per_byte"] == pytest.approx(expected, rel=1e-3)
