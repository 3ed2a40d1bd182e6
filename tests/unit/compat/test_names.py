import pytest

from small_doge.compat import names


def test_the_misspelt_organisation_is_corrected_with_a_notice(messages):
    assert names.correct_hub_name("SamllDoge/Doge-tokenizer") == "SmallDoge/Doge-tokenizer"
    assert "SamllDoge/Doge-tokenizer is a misspelling" in messages.text
    assert names.correct_hub_name("./SamllDoge/mine") == "./SamllDoge/mine"


def test_fields_of_a_model_are_renamed_with_a_notice(messages):
    renamed = names.rename_model_fields({"n_layers": 2, "kv_heads": 1, "vocab_size": 9})
    assert renamed == {"num_hidden_layers": 2, "num_key_value_heads": 1, "vocab_size": 9}
    assert "kv_heads is called num_key_value_heads here" in messages.text


@pytest.mark.parametrize("given", [{"n_experts": 4, "num_experts": 9}, {"n_exprets": 4, "n_experts": 4}])
def test_a_field_under_two_names_is_refused(given):
    with pytest.raises(ValueError, match="num_experts is set twice"):
        names.rename_model_fields(given)


def test_one_head_of_experts_is_what_there_is_and_several_are_an_error():
    assert names.rename_model_fields({"n_expert_heads": 1}) == {}
    with pytest.raises(ValueError, match=r"n_expert_heads=4: .* one router, not with several heads"):
        names.rename_model_fields({"n_expert_heads": 4})
