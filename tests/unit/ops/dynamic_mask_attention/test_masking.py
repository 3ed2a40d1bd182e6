import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.ops.dynamic_mask_attention.masking import (
    PADDING_SCORE,
    compute_leaving_index,
    plan_chunk,
    rank_keys,
    round_for_ranking,
)
from small_doge.ops.dynamic_mask_attention.reference import select_keys


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 50), window=st.integers(1, 15), chunk=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_one_number_per_key_gives_every_kept_set(tokens, window, chunk, seed):
    torch.manual_seed(seed)
    score = torch.randint(0, 5, (2, 3, tokens)).float()
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None, None]
    kept = select_keys(score, causal, window)
    leaving = compute_leaving_index(score, window, chunk)
    query = torch.arange(tokens)[:, None]
    assert torch.equal(causal & (query < leaving[:, :, None, :]), kept)
    assert torch.equal(kept.sum(-1), torch.arange(1, tokens + 1).clamp(max=window).expand(2, 3, -1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 2.0**99, width=32), min_size=1, max_size=50))
def test_scores_are_ranked_in_bfloat16(values):
    score = torch.tensor(values)
    assert torch.equal(round_for_ranking(score), score.bfloat16().float())
    assert torch.equal(round_for_ranking(score.double()), score.bfloat16().float())


def test_rounding_noise_does_not_change_the_order_of_equal_scores():
    score = torch.rand(1, 1, 4).add(0.5).bfloat16().float().repeat(1, 1, 100)
    noisy = score * (1 + 1e-6 * torch.randn_like(score))
    assert torch.equal(rank_keys(noisy), rank_keys(score))
    assert not torch.equal(
        noisy.flip(-1).sort(descending=True, stable=True).indices, score.shape[-1] - 1 - rank_keys(score)
    )


def test_padding_ranks_below_every_real_key():
    score = torch.tensor([[[PADDING_SCORE, 1e-30, PADDING_SCORE, 0.5]]])
    assert rank_keys(score).flatten().tolist() == [3, 1, 2, 0]


def test_plan_keeps_everything_while_there_is_room():
    stays, leaves_at = plan_chunk(torch.rand(1, 2, 5), 3, 8)
    assert leaves_at is None
    assert torch.equal(stays, torch.arange(5).expand(1, 2, -1))
