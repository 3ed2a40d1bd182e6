import pytest
import torch

from small_doge.ops import PADDING_SCORE, KeptKeys, dynamic_mask_attention
from small_doge.ops.dynamic_mask_attention.decode import attend_with_buffers, empty_buffers, store_key
from small_doge.ops.dynamic_mask_attention.masking import rank_keys

from .inputs import make_inputs


WINDOW = 5


@torch.no_grad()
def attend_in_pieces(inputs, sizes):
    """Outputs of a sequence taken in pieces, and the buffers and number of keys at its end."""
    query, key, value, score = inputs
    buffers, num_kept, start, outputs = empty_buffers(key, value), 0, 0, []
    for size in sizes:
        piece = [x[:, :, start : start + size] for x in (query, key, value, score)]
        out, buffers, num_kept = attend_with_buffers(
            *piece, WINDOW, query.shape[-1] ** -0.5, buffers=buffers, num_kept=num_kept, start=start
        )
        outputs.append(out)
        start += size
    return torch.cat(outputs, dim=2), buffers, num_kept


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 24, [3, 1, 1, 1, 1, 9, 1, 1, 6], [24], [5, 1, 18]])
def test_any_pieces_equal_the_reference(sizes, ties):
    inputs = [x.detach() for x in make_inputs(tokens=24, ties=ties)]
    given = [x.clone() for x in inputs]
    actual, buffers, num_kept = attend_in_pieces(inputs, sizes)
    expected = dynamic_mask_attention(*inputs, keep_window_size=WINDOW, backend="reference")
    torch.testing.assert_close(actual, expected)
    best = rank_keys(inputs[3])[..., :WINDOW].sort(dim=-1).values
    assert all(torch.equal(*pair) for pair in zip(inputs, given, strict=True))  # the caller's tensors stay as they are
    assert num_kept == WINDOW and torch.equal(buffers.view(0, num_kept).index.sort(dim=-1).values, best)


def test_buffers_grow_into_new_tensors_and_never_beyond_the_window():
    inputs = [x.detach() for x in make_inputs(batch=1, tokens=3)]
    _, before, num_kept = attend_in_pieces(inputs, [3])
    held = [x.clone() for x in before.tensors()]
    new = KeptKeys(*(x[:, :, :1].clone() for x in before.tensors()))
    after, num_kept = store_key(before, num_kept, new, WINDOW)
    assert (num_kept, before.num_keys, after.num_keys) == (4, 3, WINDOW)
    assert all(torch.equal(*pair) for pair in zip(before.tensors(), held, strict=True))


def test_a_padded_key_is_the_first_to_be_overwritten():
    query, key, value, score = (x.detach() for x in make_inputs(batch=1, tokens=WINDOW + 1))
    score[:, :, 2] = PADDING_SCORE
    _, buffers, num_kept = attend_in_pieces((query, key, value, score), [1] * (WINDOW + 1))
    assert num_kept == WINDOW
    assert all(sorted(index.tolist()) == [0, 1, 3, 4, 5] for index in buffers.index[0])
