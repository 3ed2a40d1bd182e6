import pytest
import torch
import torch.nn.functional as F

from small_doge.ops import linear_cross_entropy


def make(tokens=23, hidden=6, vocab=31):
    x = torch.randn(tokens, hidden, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocab, hidden, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, vocab, (tokens,))
    targets[::4] = -100
    return x, weight, targets


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_loss_and_gradients_equal_the_plain_form(chunk_size):
    x, weight, targets = make()
    actual = linear_cross_entropy(x, weight, targets, chunk_size=chunk_size)
    expected = F.cross_entropy(x @ weight.T, targets, ignore_index=-100)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual, (x, weight)), torch.autograd.grad(expected, (x, weight)))


def test_parts_of_an_accumulated_batch_add_up():
    x, weight, targets = make()
    whole = linear_cross_entropy(x, weight, targets)
    count = int((targets != -100).sum())
    parts = sum(
        linear_cross_entropy(x[s], weight, targets[s], num_items_in_batch=count) for s in (slice(0, 9), slice(9, None))
    )
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, (x, weight)), torch.autograd.grad(whole, (x, weight)))


@pytest.mark.parametrize("count", [7, 0, torch.tensor(0)])
def test_a_part_without_labels_adds_nothing(count):
    x, weight, targets = make()
    loss = linear_cross_entropy(x, weight, torch.full_like(targets, -100), num_items_in_batch=count)
    assert loss.item() == 0
    assert all(g.abs().sum() == 0 for g in torch.autograd.grad(loss, (x, weight)))


def test_all_logits_are_never_held(monkeypatch):
    import small_doge.ops.loss as module

    seen = []
    plain = torch.softmax
    monkeypatch.setattr(module.torch, "softmax", lambda x, **k: (seen.append(x.shape), plain(x, **k))[1])
    x, weight, targets = make(tokens=64)
    linear_cross_entropy(x, weight, targets, chunk_size=8).backward()
    assert max(rows for rows, _ in seen) == 8


def test_gradient_follows_the_scale_of_the_loss():
    x, weight, targets = make()
    one = torch.autograd.grad(linear_cross_entropy(x, weight, targets), x)[0]
    three = torch.autograd.grad(linear_cross_entropy(x, weight, targets) * 3, x)[0]
    torch.testing.assert_close(three, one * 3)


def test_a_hopeless_target_gives_a_finite_loss():
    x = torch.tensor([[1000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(x, weight, torch.tensor([1]))
    assert loss.item() == 2000
    assert torch.autograd.grad(loss, x)[0].item() == 2.0
