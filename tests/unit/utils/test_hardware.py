import torch
from tests.conftest import build_tiny

from small_doge.utils import hardware


def test_emulated_bfloat16_is_replaced_by_float32(monkeypatch):
    model = build_tiny()
    ids = torch.randint(0, 97, (1, 70))
    for fast, expected in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(hardware, "has_fast_bf16", lambda kind, fast=fast: fast)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(ids).logits.dtype == expected


def test_bfloat16_autocast_stays_close_to_float32_where_it_is_used(monkeypatch):
    monkeypatch.setattr(hardware, "has_fast_bf16", lambda kind: True)
    model = build_tiny(keep_window_size=16)
    ids = torch.randint(0, 97, (2, 40))
    exact = model(ids, labels=ids, skip_logits=True).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, labels=ids, skip_logits=True).loss
    assert abs(rounded - exact) / exact < 0.01
    rounded.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_machine_is_described():
    facts = hardware.describe_device()
    assert facts["cores"] >= 1 and facts["memory_gib"] > 0
