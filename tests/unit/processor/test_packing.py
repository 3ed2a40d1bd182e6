import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_doge.processor.data_config import choose_packing
from small_doge.processor.encoder import Example
from small_doge.processor.packing import PackedCollator, pack, plan_best_fit


def examples_of(lengths):
    tokens = [np.arange(i * 100, i * 100 + n, dtype=np.int32) for i, n in enumerate(lengths)]
    return [Example(i, ids, ids + 1, size=len(ids)) for i, ids in enumerate(tokens)]


@given(
    lengths=st.lists(st.integers(1, 40), max_size=60),
    max_length=st.integers(2, 20),
    packing=st.sampled_from(["best_fit", "wrapped"]),
)
def test_every_token_is_packed_once_with_its_label_and_pieces_stay_whole(lengths, max_length, packing):
    rows = pack(examples_of(lengths), max_length, packing, split_long=True)
    expected = sorted(i * 100 + j for i, n in enumerate(lengths) for j in range(n))
    assert sorted(t for row in rows for t in row.tokens.tolist()) == expected
    for row in rows:
        assert sum(row.lengths) == len(row.tokens) <= max_length
        assert (row.labels == row.tokens + 1).all()
        start = 0
        for n, key in zip(row.lengths, row.keys, strict=True):
            piece = row.tokens[start : start + n].tolist()
            assert piece == list(range(piece[0], piece[0] + n)) and piece[0] // 100 == key
            start += n


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), max_length=st.integers(2, 20))
def test_wrapped_rows_are_full_but_the_last(lengths, max_length):
    rows = pack(examples_of(lengths), max_length, "wrapped", split_long=True)
    assert all(len(row.tokens) == max_length for row in rows[:-1])


def test_conversations_are_cut_and_not_split():
    rows = pack(examples_of([30, 5]), 20, "best_fit", split_long=False)
    assert sorted(len(row.tokens) for row in rows) == [5, 20]


def test_rows_are_well_filled():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 120, (3000,), generator=generator).tolist()
    assert sum(lengths) / (256 * len(plan_best_fit(lengths, 256))) > 0.97


def test_an_unknown_packing_is_named():
    assert choose_packing(True) == choose_packing("true") == "best_fit" and choose_packing(False) == "none"
    with pytest.raises(ValueError, match="unknown packing 'bestfit'; did you mean 'best_fit'"):
        choose_packing("bestfit")


def test_collator_restarts_positions_and_gives_first_tokens_no_label():
    batch = PackedCollator()(
        [{"input_ids": [1, 2, 3, 4, 5], "seq_lengths": [2, 3]}, {"input_ids": [6, 7], "seq_lengths": [2]}]
    )
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 2, -100, 4, 5, -100, 7]]
    assert "attention_mask" not in batch


def test_collator_refuses_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match="seq_lengths sum to 3, but the row holds 2 tokens"):
        PackedCollator()([{"input_ids": [1, 2], "seq_lengths": [3]}])


def test_collator_keeps_given_labels_and_drops_padding():
    row = {"input_ids": [1, 2, 3, 0, 0], "labels": [-100, 2, 3, -100, -100], "seq_lengths": [3]}
    batch = PackedCollator()([{**row, "attention_mask": [1, 1, 1, 0, 0]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3]] and batch["labels"].tolist() == [[-100, 2, 3]]
    with pytest.raises(ValueError, match="the row holds 5 tokens"):
        PackedCollator()([row])
