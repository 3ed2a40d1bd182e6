import torch

from small_doge.ops.dynamic_mask_attention.flex import BLOCK_SIZE, build_block_mask
from small_doge.ops.dynamic_mask_attention.masking import compute_leaving_index


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
