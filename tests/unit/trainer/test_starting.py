"""What a run starts from: tokenizers that belong to weights, checkpoints with an optimizer, outputs that are not inputs."""

import pytest
import torch
from tests.conftest import build_tiny
from transformers import AutoTokenizer

from small_doge.processor import train_tokenizer
from small_doge.trainer import building, starting
from small_doge.trainer.arguments import ModelArguments
from small_doge.utils.errors import UserError


@pytest.fixture
def trained(tmp_path, tiny_tokenizer):
    build_tiny(vocab_size=len(tiny_tokenizer) + 8).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_a_foreign_tokenizer_is_refused_on_trained_weights_even_if_it_is_smaller(trained, tmp_path):
    foreign = train_tokenizer(["other words than those " * 50], vocab_size=300)
    foreign.save_pretrained(tmp_path / "foreign")
    arguments = ModelArguments(model_name_or_path=trained, tokenizer_name_or_path=str(tmp_path / "foreign"))
    with pytest.raises(
        UserError, match="foreign is not the tokenizer of .*model: .* of its tokens have other numbers"
    ):
        building.build_model(arguments, foreign)


def test_the_models_own_tokenizer_with_more_tokens_is_taken(trained, tmp_path):
    grown = AutoTokenizer.from_pretrained(trained)
    grown.add_tokens(["<new>"])
    grown.save_pretrained(tmp_path / "grown")
    arguments = ModelArguments(model_name_or_path=trained, tokenizer_name_or_path=str(tmp_path / "grown"))
    assert building.build_model(arguments, grown).config.vocab_size == len(grown) + 7


def test_going_on_without_the_optimizers_state_must_be_asked_for(trained, tmp_path):
    with pytest.raises(UserError, match="has no optimizer.pt.*set reset_optimizer to true"):
        starting.find_optimizer_state(ModelArguments(continue_from=trained), None)
    assert starting.find_optimizer_state(ModelArguments(continue_from=trained, reset_optimizer=True), None) is None
    torch.save({}, tmp_path / "model" / "optimizer.pt")
    assert (
        starting.find_optimizer_state(ModelArguments(continue_from=trained), None)
        == tmp_path / "model" / "optimizer.pt"
    )
    with pytest.raises(UserError, match="has no optimizer.pt"):
        starting.find_optimizer_state(ModelArguments(continue_from="someone/not-here"), None)


@pytest.mark.parametrize("name", ["model_name_or_path", "continue_from", "tokenizer_name_or_path"])
def test_a_run_does_not_write_over_what_it_starts_from(trained, tmp_path, name):
    with pytest.raises(UserError, match=f"holds {name}=.*model, which would be written over"):
        starting.check_output(tmp_path / "model", ModelArguments(**{name: trained}))
    checkpoint = tmp_path / "model" / "checkpoint-7"  # which overwrite would delete
    checkpoint.mkdir()
    with pytest.raises(UserError, match=f"holds {name}=.*checkpoint-7, which would be written over"):
        starting.check_output(tmp_path / "model", ModelArguments(**{name: str(checkpoint)}))
    starting.check_output(tmp_path / "next", ModelArguments(**{name: str(checkpoint)}))
