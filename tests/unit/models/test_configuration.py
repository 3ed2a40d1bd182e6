import json

import pytest
from tests.conftest import EXPERTS, TINY
from transformers import AutoConfig
from transformers.models.doge import DogeConfig as TheirConfig

from small_doge import DogeConfig
from small_doge.models import PRESETS, DogeMoeConfig
from small_doge.utils.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size=32 must be a multiple of num_attention_heads=3"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 must be a multiple of num_key_value_heads=3"),
        ({"keep_window_size": 0}, "keep_window_size=0 must be at least 1"),
        ({"sliding_window": 16}, "sliding_window=16 is not supported"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be at least 1"),
        ({**EXPERTS, "num_experts": 60}, "num_experts=60 must be a square number; the nearest are 49 or 64"),
        ({**EXPERTS, "num_experts_per_tok": 65}, "num_experts_per_tok=65 must lie between 1 and num_experts=64"),
        ({**EXPERTS, "num_experts": "64"}, "num_experts='64' must be a whole number"),
        ({**EXPERTS, "router_aux_loss_coef": -0.1}, "router_aux_loss_coef=-0.1 must be a number of at least 0"),
        ({"hidden_size": "64"}, "hidden_size='64' must be a whole number"),
        ({"keep_window_size": 8.5}, "keep_window_size=8.5 must be a whole number"),
        ({"hidden_size": 28}, "hidden_size / num_attention_heads=7 must be even"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"head_dim": -8}, "head_dim=-8 must be at least 1"),
        ({"head_dim": "8"}, "head_dim='8' must be a whole number"),
        ({"pad_token_id": 97}, "pad_token_id=97 must be a whole number below vocab_size=97"),
        ({"pad_token_id": "0"}, "pad_token_id='0' must be a whole number"),
        ({"hidden_act": "silou"}, "unknown hidden_act 'silou'; did you mean 'silu'"),
        ({"rope_parameters": "dynamic"}, "rope_parameters='dynamic' must map names to values"),
        ({"rope_parameters": {"rope_type": "dynamick"}}, "unknown rope_type 'dynamick'; did you mean 'dynamic'"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type='dynamic' needs: Missing required keys .*'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, r"rope_parameters\.factor='4' must be a number"),
        ({"rope_parameters": {"rope_theta": "1e4"}}, r"rope_parameters\.rope_theta='1e4' must be a number"),
        (
            {"rope_parameters": {"rope_type": "longrope", "short_factor": None, "long_factor": None}},
            "short_factor.* is not what rope_type='longrope' needs",
        ),
    ],
)
def test_bad_values_are_named_at_construction(change, message):
    with pytest.raises(UserError, match=message):
        DogeConfig(**{**TINY, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"pad_token_id": None},
        {"pad_token_id": -1},  # files of the hub hold it
        {"head_dim": None},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000, "factor": None}},
    ],
)
def test_values_that_files_of_transformers_hold_are_taken(tmp_path, change):
    TheirConfig(**{**TINY, **change}).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).hidden_act == change.get("hidden_act", "silu")


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="unknown preset 'Doge-20'; did you mean 'Doge-20M'"):
        DogeConfig.from_preset("Doge-20")


def test_presets_are_not_changed_by_their_users():
    config = DogeConfig.from_preset("Doge-20M", hidden_size=512)
    config.rope_parameters["factor"] = 99.0
    assert PRESETS["Doge-20M"]["rope_parameters"]["factor"] == 4.0
    assert DogeConfig.from_preset("Doge-20M").hidden_size == 256


@pytest.mark.parametrize(("name", "experts"), [("Doge-20M-MoE", (1024, 8)), ("Doge-320M-MoE", (16384, 32))])
def test_expert_presets(name, experts):
    config = DogeConfig.from_preset(name)
    assert isinstance(config, DogeMoeConfig)
    assert (config.num_experts, config.num_experts_per_tok) == experts


def test_defaults_are_those_of_transformers():
    ours, theirs = DogeConfig().to_dict(), TheirConfig().to_dict()
    differing = {name for name in theirs if ours.get(name) != theirs[name]}
    assert differing <= {"router_aux_loss_coef"}


def test_the_head_dimension_follows_from_the_sizes_and_is_saved_only_where_it_was_given(tmp_path):
    config = DogeConfig(**TINY)
    assert config.head_dim == 8 and "head_dim" not in config.to_dict()
    config.hidden_size = 64
    assert config.head_dim == 16
    config = DogeConfig(**{**TINY, "hidden_size": 34}, head_dim=12)  # no multiple of the 4 heads
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["head_dim"] == 12
    assert AutoConfig.from_pretrained(tmp_path).head_dim == TheirConfig.from_pretrained(tmp_path).head_dim == 12


def test_dense_models_have_no_router_loss_even_from_an_older_file(tmp_path):
    TheirConfig(**TINY, router_aux_loss_coef=0.001).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["router_aux_loss_coef"] == 0.001
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, DogeConfig) and config.router_aux_loss_coef == 0.0
    config.save_pretrained(tmp_path)
    assert TheirConfig.from_pretrained(tmp_path).router_aux_loss_coef == 0.0


def test_experts_are_saved_under_a_type_that_transformers_refuses(tmp_path):
    DogeConfig(**TINY, **EXPERTS).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "doge_moe"
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, DogeMoeConfig) and loaded.num_experts == 64


def test_foreign_experts_load_only_with_the_old_routing(tmp_path):
    TheirConfig(**TINY, **EXPERTS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="legacy_routing=True"):
        AutoConfig.from_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, legacy_routing=True)
    assert config.legacy_routing and config.model_type == "doge"
