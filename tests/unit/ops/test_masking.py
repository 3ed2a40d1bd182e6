import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.ops.flex import BLOCK_SIZE, build_block_mask
from small_doge.ops.masking import (
    PADDING_SCORE,
    compute_leaving_index,
    document_ids_from_positions,
    group_documents,
    plan_chunk,
    rank_keys,
    round_for_ranking,
)
from small_doge.ops.reference import select_keys


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


def test_a_dropped_key_never_comes_back():
    score = torch.randn(1, 1, 64).exp()
    kept = select_keys(score, torch.ones(64, 64, dtype=torch.bool).tril()[None, None], 9)[0, 0]
    for i in range(63):
        newcomers = kept[i + 1] & ~kept[i]
        assert set(newcomers.nonzero().flatten().tolist()) <= {i + 1}


def test_plan_keeps_everything_while_there_is_room():
    stays, leaves_at = plan_chunk(torch.rand(1, 2, 5), 3, 8)
    assert leaves_at is None
    assert torch.equal(stays, torch.arange(5).expand(1, 2, -1))


def test_block_mask_visits_every_block_that_holds_a_pair():
    score = torch.rand(1, 1, 1000)
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor([100, 500, 400]))[None]
    leaving = compute_leaving_index(score, 150, 64, documents)
    query = torch.arange(1000)[:, None]
    pairs = (torch.arange(1000) <= query) & (query < leaving[0, 0]) & (documents[0][:, None] == documents[0])
    visited = build_block_mask(leaving, documents).to_dense()[0, 0].bool()
    padded = torch.nn.functional.pad(pairs, (0, 24, 0, 24)).view(8, BLOCK_SIZE, 8, BLOCK_SIZE).any(3).any(1)
    assert bool((visited | ~padded).all())
    assert visited.sum() < visited.numel() / 2


def test_restarting_positions_are_documents_and_others_are_not():
    assert document_ids_from_positions(torch.arange(5)[None] + 7) is None
    ids = document_ids_from_positions(torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]))
    assert ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_groups_hold_every_token_once_with_little_padding():
    lengths = torch.randint(1, 200, (40,))
    ids = torch.repeat_interleave(torch.arange(40), lengths)[None]
    groups = group_documents(ids)
    tokens = torch.cat([g.tokens[g.real] for g in groups])
    assert torch.equal(tokens.sort().values, torch.arange(ids.shape[1]))
    assert sum(g.tokens.numel() for g in groups) < 1.35 * ids.shape[1]
    for group in groups:
        for row, real in zip(group.tokens, group.real, strict=True):
            assert len(set(ids[0, row[real]].tolist())) == 1
