import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.ops import dynamic_mask_attention

from .inputs import make_inputs


def brute_force(query, key, value, score, window, padding=None, documents=None):
    """The definition, query by query, in plain Python."""
    batch, heads, tokens, size = query.shape
    groups = heads // key.shape[1]
    output = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            k = h // groups
            for i in range(tokens):
                seen = [
                    j
                    for j in range(i + 1)
                    if (padding is None or padding[b, j]) and (documents is None or documents[b, j] == documents[b, i])
                ]
                kept = sorted(seen, key=lambda j: (-float(score[b, k, j].bfloat16()), -j))[:window]
                if kept:
                    logits = key[b, k, kept] @ query[b, h, i] / size**0.5 + score[b, k, kept]
                    output[b, h, i] = torch.softmax(logits, -1) @ value[b, k, kept]
    return output


@pytest.mark.parametrize("backend", ["reference", "streaming", "auto"])
@pytest.mark.parametrize("ties", [False, True])
def test_backend_follows_the_definition_with_padding_and_documents(backend, ties):
    inputs = make_inputs(tokens=15, ties=ties)
    padding = torch.ones(2, 15, dtype=torch.bool)
    padding[0, :4] = False
    padding[1, -3:] = False
    documents = torch.tensor([[0] * 6 + [1] * 9, [0] * 15])
    with torch.no_grad():
        expected = brute_force(*inputs, 5, padding, documents)
        actual = dynamic_mask_attention(
            *inputs, keep_window_size=5, padding_mask=padding, document_ids=documents, backend=backend, chunk_size=4
        )
    torch.testing.assert_close(actual, expected)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    window=st.integers(1, 12),
    chunk=st.integers(1, 16),
    ties=st.booleans(),
    padded=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_backends_agree_in_output_and_gradient(tokens, window, chunk, ties, padded, packed, seed):
    torch.manual_seed(seed)
    inputs = make_inputs(tokens=tokens, ties=ties)
    options = {
        "keep_window_size": window,
        "padding_mask": torch.rand(2, tokens) > 0.3 if padded else None,
        "document_ids": (torch.rand(2, tokens) < 0.15).cumsum(-1) if packed else None,
        "chunk_size": chunk,
    }
    expected = dynamic_mask_attention(*inputs, backend="reference", **options)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)
    for backend in ("auto", "streaming"):
        actual = dynamic_mask_attention(*inputs, backend=backend, **options)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(torch.autograd.grad(actual, inputs, upstream), expected_gradients)
    detached = [x.detach() for x in inputs]  # on a CPU, FlexAttention has no backward pass
    torch.testing.assert_close(dynamic_mask_attention(*detached, backend="flex", **options), expected.detach())


@pytest.mark.parametrize("backend", ["reference", "streaming", "auto", "flex"])
@pytest.mark.parametrize("window", [4, 64])
def test_later_tokens_never_change_earlier_outputs(backend, window):
    inputs = [x.detach() for x in make_inputs(tokens=24)]
    changed = [x.clone() for x in inputs]
    for x in changed:
        x[:, :, 15:] = torch.rand_like(x[:, :, 15:]) * 5
    before, after = (
        dynamic_mask_attention(*x, keep_window_size=window, backend=backend, chunk_size=7) for x in (inputs, changed)
    )
    torch.testing.assert_close(before[:, :, :15], after[:, :, :15])
    assert not torch.allclose(before[:, :, 15:], after[:, :, 15:])


def test_equal_scores_make_a_sliding_window():
    query, key, value, _ = make_inputs(batch=1, tokens=20)
    score = torch.ones(1, 2, 20, dtype=torch.float64)
    output = dynamic_mask_attention(query, key, value, score, keep_window_size=4, chunk_size=6)
    band = torch.ones(20, 20, dtype=torch.bool).tril().triu(-3)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=band, enable_gqa=True)
    torch.testing.assert_close(output, expected)


def test_padded_queries_without_keys_are_zero_and_gradients_finite():
    inputs = make_inputs(tokens=12)
    padding = torch.ones(2, 12, dtype=torch.bool)
    padding[0] = False
    for backend in ("reference", "auto", "streaming"):
        output = dynamic_mask_attention(
            *inputs, keep_window_size=4, padding_mask=padding, backend=backend, chunk_size=3
        )
        assert torch.equal(output[0], torch.zeros_like(output[0]))
        assert all(g.isfinite().all() for g in torch.autograd.grad(output.square().sum(), inputs))


def test_packed_documents_equal_the_documents_alone():
    query, key, value, score = make_inputs(batch=1, tokens=30)
    lengths = [3, 17, 10]
    ids = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed = dynamic_mask_attention(query, key, value, score, keep_window_size=6, document_ids=ids)
    start = 0
    for length in lengths:
        part = [x[:, :, start : start + length] for x in (query, key, value, score)]
        alone = dynamic_mask_attention(*part, keep_window_size=6)
        torch.testing.assert_close(packed[:, :, start : start + length], alone)
        start += length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "stream"}, "unknown backend 'stream'; did you mean 'streaming'"),
        ({"backend": "sdpa"}, "unknown backend 'sdpa'; Known: auto, flex, fused, reference, streaming"),
        ({"backend": "flex", "dropout": 0.1}, "attention_dropout=0.1 is not supported by the flex backend"),
        ({"backend": "fused"}, "keep_window_size=4 tokens, got 20; use backend='streaming'"),
        ({"keep_window_size": 0}, "keep_window_size=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dynamic_mask_attention(*make_inputs(), **{"keep_window_size": 4, **change})


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["auto", "streaming", "flex"])
def test_cuda_backends_agree_with_the_reference(backend, dtype):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    inputs = [x.detach().cuda().requires_grad_() for x in make_inputs(tokens=700, size=64, dtype=torch.float32)]
    documents = torch.repeat_interleave(torch.arange(2), torch.tensor([300, 400]))[None].expand(2, -1).cuda()
    typed = [*(x.to(dtype) for x in inputs[:3]), inputs[3]]
    options = {"keep_window_size": 128, "document_ids": documents}
    expected = dynamic_mask_attention(*typed, backend="reference", **options).float()
    actual = dynamic_mask_attention(*typed, backend=backend, **options).float()
    limit = 2e-2 if dtype == torch.bfloat16 else 5e-3
    assert (actual - expected).norm() / expected.norm() < limit
    gradients = [torch.autograd.grad(out.square().sum(), inputs, retain_graph=True) for out in (actual, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 5 * limit
