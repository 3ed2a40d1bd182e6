"""A live teacher must mean by each token what the student means."""

import json

import pytest
from tests.conftest import build_tiny

from small_doge.processor import train_tokenizer
from small_doge.processor.corpus import iterate_mixture
from small_doge.trainer.teacher import DistillationArguments, check_same_tokens, load_teacher
from small_doge.utils.errors import UserError


@pytest.fixture(scope="module")
def other_tokenizer():
    return train_tokenizer(list(iterate_mixture(400))[::-2], vocab_size=512, max_digits=3, model_max_length=64)


def load(folder, student, tokenizer):
    args = DistillationArguments(
        output_dir=str(folder / "out"), teacher_model_name_or_path=str(folder), use_cpu=True, report_to="none"
    )
    return load_teacher(args, student, tokenizer)


def test_a_teacher_with_the_same_tokens_is_taken(tiny_tokenizer, tmp_path):
    build_tiny(vocab_size=512, hidden_size=64).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path, build_tiny(vocab_size=512), tiny_tokenizer).config.hidden_size == 64


def test_the_same_number_of_other_tokens_is_refused(tiny_tokenizer, other_tokenizer, tmp_path):
    assert len(tiny_tokenizer) == len(other_tokenizer)
    with pytest.raises(ValueError, match=r"its tokenizer is not the student's .* is \d+ here and"):
        check_same_tokens("teacher", tiny_tokenizer, other_tokenizer)


def test_another_width_of_the_vocabulary_is_refused(tiny_tokenizer, tmp_path):
    build_tiny(vocab_size=600).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its vocab_size is 600, the student's 512"):
        load(tmp_path, build_tiny(vocab_size=512), tiny_tokenizer)


@pytest.mark.parametrize("model_type", ["t5", "nothing_known"])
def test_a_teacher_that_is_no_causal_language_model_is_refused(tiny_tokenizer, tmp_path, model_type):
    build_tiny(vocab_size=512).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"teacher_model_name_or_path=.*: name a causal language model of transformers"
    ):
        load(tmp_path, build_tiny(vocab_size=512), tiny_tokenizer)


def test_a_missing_teacher_is_named(tiny_tokenizer, tmp_path):
    with pytest.raises(ValueError, match="teacher_model_name_or_path: there is no folder"):
        load(tmp_path / "none", build_tiny(vocab_size=512), tiny_tokenizer)
