import torch

from small_doge.ops import document_ids_from_positions, group_documents


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
