import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_doge.processor.packing import PackedCollator, pack_best_fit


@given(lengths=st.lists(st.integers(1, 40), max_size=60), max_length=st.integers(2, 20), window=st.integers(1, 50))
def test_every_token_is_packed_once_and_documents_stay_whole(lengths, max_length, window):
    documents = [[i * 100 + j for j in range(n)] for i, n in enumerate(lengths)]
    rows = list(pack_best_fit(documents, max_length, window))
    assert sorted(t for row in rows for t in row["input_ids"]) == sorted(t for d in documents for t in d)
    for row in rows:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) <= max_length
        start = 0
        for n in row["seq_lengths"]:
            piece = row["input_ids"][start : start + n]
            assert piece == list(range(piece[0], piece[0] + n))
            start += n


def test_rows_are_well_filled():
    generator = torch.Generator().manual_seed(0)
    documents = [[0] * int(n) for n in torch.randint(5, 120, (3000,), generator=generator)]
    rows = list(pack_best_fit(documents, 256))
    assert sum(len(r["input_ids"]) for r in rows) / (256 * len(rows)) > 0.97


def test_collator_restarts_positions_and_gives_first_tokens_no_label():
    batch = PackedCollator()(
        [{"input_ids": [1, 2, 3, 4, 5], "seq_lengths": [2, 3]}, {"input_ids": [6, 7], "seq_lengths": [2]}]
    )
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 2, -100, 4, 5, -100, 7]]
    assert "attention_mask" not in batch


def test_collator_refuses_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match="seq_lengths sum to 3, but the rows hold 2 tokens"):
        PackedCollator()([{"input_ids": [1, 2], "seq_lengths": [3]}])
