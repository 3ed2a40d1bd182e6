"""A tokenizer of as many tokens as the model's own, but not its own, is refused wherever a model is opened."""

from types import SimpleNamespace

import pytest
from tests.conftest import build_tiny
from tests.vocabularies import swap_two_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from small_doge.evaluation.controls import open_with_hf
from small_doge.inference import TorchEngine
from small_doge.inference.export import export_hf
from small_doge.models import upcycle_to_moe
from small_doge.processor.tokenizer import build_generation_config
from small_doge.trainer.arguments import ModelArguments
from small_doge.trainer.building import build_model
from small_doge.trainer.teacher import DistillationArguments, load_teacher
from small_doge.utils.errors import UserError
from small_doge.utils.vocabulary import check_tokenizer_fits, hash_vocabulary


FOREIGN = "the tokenizer is not the one that .* was trained with: the same ids stand for other tokens"


@pytest.fixture
def tokenizer(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "own")
    return AutoTokenizer.from_pretrained(tmp_path / "own")


@pytest.fixture
def model(tokenizer):
    model = build_tiny(vocab_size=len(tokenizer), vocabulary_hash=hash_vocabulary(tokenizer))
    model.generation_config = build_generation_config(tokenizer)
    return model


@pytest.fixture
def foreign(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "foreign")
    swap_two_tokens(tmp_path / "foreign")
    return AutoTokenizer.from_pretrained(tmp_path / "foreign")


@pytest.fixture
def mixed(model, foreign, tmp_path):
    """A model's folder with the files of another tokenizer."""
    model.save_pretrained(tmp_path / "mixed")
    foreign.save_pretrained(tmp_path / "mixed")
    return str(tmp_path / "mixed")


def test_the_hash_is_that_of_ids_and_their_texts(tokenizer, foreign):
    assert hash_vocabulary(tokenizer) == hash_vocabulary(tokenizer, len(tokenizer))
    assert hash_vocabulary(tokenizer).startswith(f"{len(tokenizer)}-")
    assert len(foreign) == len(tokenizer) and hash_vocabulary(foreign) != hash_vocabulary(tokenizer)


def test_a_tokenizer_to_which_tokens_were_added_is_taken(tokenizer, model):
    tokenizer.add_tokens(["<new>"])
    model.config.vocab_size += 1
    check_tokenizer_fits(tokenizer, model.config)
    model.config.vocabulary_hash = hash_vocabulary(tokenizer)
    assert model.config.vocabulary_hash.startswith(f"{len(tokenizer)}-")


def test_a_run_records_the_vocabulary_and_the_next_refuses_another(tokenizer, foreign, tmp_path):
    sizes = {"vocab_size": 512, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    new = build_model(ModelArguments(model_preset="Doge-20M", model_overrides=sizes), tokenizer)
    assert new.config.vocabulary_hash == hash_vocabulary(tokenizer)
    new.save_pretrained(tmp_path / "run")
    foreign.save_pretrained(tmp_path / "run")
    arguments = ModelArguments(model_name_or_path=str(tmp_path / "run"))
    with pytest.raises(UserError, match=FOREIGN):
        build_model(arguments, foreign)
    assert build_model(arguments, tokenizer).config.vocabulary_hash == hash_vocabulary(tokenizer)


def test_a_folder_with_the_files_of_another_tokenizer_is_not_opened(mixed, model, foreign):
    for open_model in (TorchEngine, open_with_hf):
        with pytest.raises(UserError, match=FOREIGN):
            open_model(mixed)
    with pytest.raises(UserError, match=FOREIGN):
        TorchEngine(model, foreign)


def test_a_teacher_with_the_files_of_another_tokenizer_is_refused(mixed, foreign):
    args = DistillationArguments(
        output_dir=f"{mixed}/out", teacher_model_name_or_path=mixed, use_cpu=True, report_to="none"
    )
    with pytest.raises(UserError, match="the teacher .*mixed was trained with"):
        load_teacher(args, build_tiny(vocab_size=len(foreign)), foreign)


def test_the_record_survives_upcycling_and_export(model, tokenizer, tmp_path):
    grown = upcycle_to_moe(model, 16, 2)
    assert grown.config.vocabulary_hash == model.config.vocabulary_hash
    export_hf(model, tokenizer, tmp_path / "clean")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "clean").config.vocabulary_hash
    assert found == model.config.vocabulary_hash


def test_where_nothing_is_recorded_other_special_tokens_are_a_warning(tokenizer, messages):
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = SimpleNamespace(vocab_size=512, **ids)
    check_tokenizer_fits(tokenizer, config)
    check_tokenizer_fits(tokenizer, SimpleNamespace(vocab_size=512))
    ends = SimpleNamespace(eos_token_id=[99, tokenizer.eos_token_id])
    check_tokenizer_fits(tokenizer, SimpleNamespace(vocab_size=512, eos_token_id=98), "the model", ends)
    assert not messages.lines
    check_tokenizer_fits(tokenizer, SimpleNamespace(vocab_size=512, eos_token_id=[98, 99]), "old/model")
    assert "the tokenizer may be another model's: its eos_token_id is 1, and old/model has 98, 99" in messages.text


def test_a_vocabulary_that_is_too_small_is_named(tokenizer):
    with pytest.raises(UserError, match=r"the tokenizer has 512 entries, and the vocab_size of tiny is 40"):
        check_tokenizer_fits(tokenizer, SimpleNamespace(vocab_size=40), "tiny")
