import pytest
import torch
from tests.conftest import EXPERTS, build_tiny

from small_doge import DogeForCausalLM
from small_doge.models import upcycle_to_moe


def test_logits_are_identical_and_then_training_goes_on():
    dense = build_tiny()
    grown = upcycle_to_moe(dense, 64, 4).eval()
    ids = torch.randint(0, 97, (2, 15))
    assert torch.equal(grown(ids).logits, dense(ids).logits)
    assert grown.config.model_type == "doge_moe" and grown.num_parameters() > dense.num_parameters()
    grown.train()
    optimizer = torch.optim.AdamW(grown.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        out = grown(ids, labels=ids)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    assert losses[-1] < losses[0]
    assert grown.model.layers[0].mlp.up_embed.weight.abs().sum() > 0


def test_same_seed_same_experts_and_the_dense_model_is_untouched():
    dense = build_tiny()
    before = {k: v.clone() for k, v in dense.state_dict().items()}
    a, b = (upcycle_to_moe(dense, 16, 2, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(torch.equal(v, before[k]) for k, v in dense.state_dict().items())


def test_experts_cannot_be_added_twice_and_must_be_square():
    with pytest.raises(ValueError, match="has 64 experts already"):
        upcycle_to_moe(build_tiny(**EXPERTS), 64, 4)
    with pytest.raises(ValueError, match="num_experts=50 must be a square number"):
        upcycle_to_moe(build_tiny(), 50, 4)


def test_a_model_in_bfloat16_keeps_its_rotary_frequencies(tmp_path):
    build_tiny(max_position_embeddings=512, keep_window_size=512).save_pretrained(tmp_path)
    dense = DogeForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    grown = upcycle_to_moe(dense, 16, 2).eval()
    for (name, ours), theirs in zip(grown.named_buffers(), dense.buffers(), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs), name
    ids = torch.randint(0, 97, (1, 400))
    assert torch.equal(grown(ids).logits, dense(ids).logits)
