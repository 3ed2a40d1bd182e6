import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import build_tiny
from transformers import AutoModelForCausalLM

from small_doge.models import DogeForCausalLM, load_model


@pytest.fixture
def folder(tmp_path):
    build_tiny().save_pretrained(tmp_path)
    return tmp_path


def edit(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_good_weights_load(folder):
    assert load_model(AutoModelForCausalLM, folder).num_parameters() == build_tiny().num_parameters()


def test_missing_and_unexpected_keys_are_listed(folder):
    def change(weights):
        weights["model.extra.weight"] = weights.pop("model.norm.weight")

    edit(folder, change)
    with pytest.raises(ValueError, match="(?s)missing keys: model.norm.weight.*unexpected keys: model.extra.weight"):
        load_model(AutoModelForCausalLM, folder)


def test_wrong_shapes_are_listed_with_both_shapes(folder):
    edit(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(7)}))
    with pytest.raises(ValueError, match=r"model.norm.weight \(file \(7,\), model \(32,\)\)"):
        load_model(AutoModelForCausalLM, folder)


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no model could be loaded from .*safetensors"):
        load_model(AutoModelForCausalLM, folder)


def test_tied_weights_are_saved_once_where_a_state_dict_has_copies_of_them(tmp_path):
    model = build_tiny()
    copies = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=copies)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == copies.keys() - {"lm_head.weight"}
    assert torch.equal(load_model(DogeForCausalLM, tmp_path).lm_head.weight, model.lm_head.weight)
