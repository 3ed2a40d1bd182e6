import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_doge.utils.scheduler import WSDScheduler, compute_wsd_factor, split_steps


def make_optimizer(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, steps):
    out = []
    for _ in range(steps):
        out.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return out


@given(
    warmup=st.integers(0, 20),
    stable=st.integers(0, 20),
    decay=st.integers(0, 20),
    floor=st.floats(0, 1),
    kind=st.sampled_from(["linear", "cosine", "1-sqrt"]),
)
def test_it_rises_stays_and_falls(warmup, stable, decay, floor, kind):
    factors = [compute_wsd_factor(s, warmup, stable, decay, floor, kind) for s in range(warmup + stable + decay + 3)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert all(f == 1 for f in factors[warmup : warmup + stable + 1][: stable + (decay > 0)])
    falling = factors[warmup + stable :]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(floor, abs=1e-9)
    assert all(-1e-12 <= f <= 1 for f in factors)


def test_the_guides_call_works():
    scheduler = WSDScheduler(
        make_optimizer(), warmup_steps=8, stable_steps=64, decay_steps=8, max_lr=8e-3, min_lr=8e-5
    )
    seen = rates(scheduler, 81)
    assert seen[0] == 0 and seen[4] == pytest.approx(4e-3)
    assert all(r == pytest.approx(8e-3) for r in seen[8:73])
    assert seen[80] == pytest.approx(8e-5)


def test_going_on_from_a_stable_checkpoint_has_no_jump():
    first = WSDScheduler(make_optimizer(), 5, 50, 5, max_lr=1e-2)
    before = rates(first, 30)[-1]
    second = WSDScheduler(make_optimizer(), 0, 20, 10, max_lr=1e-2)
    after = rates(second, 31)
    assert after[0] == pytest.approx(before) and after[19] == pytest.approx(before) and after[30] == 0


@pytest.mark.parametrize("how", ["by the last step", "by a state"])
def test_an_own_loop_goes_on_in_the_decay_without_naming_the_peak_again(how):
    lengths, floor = (5, 10, 20), 0.01
    whole = WSDScheduler(make_optimizer(), *lengths, min_lr=floor)
    head = rates(whole, 25)
    optimizer = make_optimizer()
    optimizer.load_state_dict(whole.optimizer.state_dict())
    last = 24 if how == "by the last step" else -1
    resumed = WSDScheduler(optimizer, *lengths, min_lr=floor, last_epoch=last)
    if last == -1:
        resumed.load_state_dict(whole.state_dict())
        optimizer.param_groups[0]["lr"] = resumed.get_lr()[0]
    expected = rates(WSDScheduler(make_optimizer(), *lengths, min_lr=floor), 36)
    assert head == expected[:25]
    assert [resumed.get_lr()[0], *rates(resumed, 11)[1:]] == pytest.approx(expected[25:])


def test_resuming_gives_the_same_rates():
    whole = rates(WSDScheduler(make_optimizer(), 5, 10, 5, max_lr=1.0), 20)
    first = WSDScheduler(make_optimizer(), 5, 10, 5, max_lr=1.0)
    head = rates(first, 8)
    second = WSDScheduler(make_optimizer(), 5, 10, 5, max_lr=1.0)
    second.load_state_dict(first.state_dict())
    second.optimizer.param_groups[0]["lr"] = second.get_last_lr()[0]
    assert head + rates(second, 12) == pytest.approx(whole)


def test_steps_are_shares_or_numbers_and_stable_is_what_is_left():
    assert split_steps(1, 0.1, 0.1) == (0, 0, 1) and split_steps(2, 0.1, 0.1) == (1, 0, 1)
    assert split_steps(8000, 0.1, 0.1) == (800, 6400, 800)
    assert split_steps(100, 10, 0.2) == (10, 70, 20)
    with pytest.raises(ValueError, match="are more than max_steps=100"):
        split_steps(100, 60, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stable_steps": -1}, "none may be negative"),
        ({"min_lr": 2.0}, "min_lr=2.0 must lie between 0 and max_lr"),
        ({"decay_type": "square"}, "decay_type='square' is unknown"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        WSDScheduler(make_optimizer(), **{"warmup_steps": 1, "stable_steps": 1, "decay_steps": 1, **change})
