import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from small_doge.processor import train_tokenizer
from small_doge.processor.corpus import iterate_mixture
from small_doge.processor.tokenizer import build_generation_config, sample_texts
from small_doge.utils.errors import UserError


@pytest.mark.parametrize(
    "text", ["Ada has 12 balls.", "  two  spaces\n\n\ttab", "naïve 你好 🙂", "def f(x):\n    return x", ""]
)
def test_any_text_comes_back(tiny_tokenizer, text):
    ids = tiny_tokenizer(text)["input_ids"]
    assert ids[0] == tiny_tokenizer.bos_token_id
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_are_distinct_and_generation_stops_at_both_ends(tiny_tokenizer):
    tokens = tiny_tokenizer
    ids = tokens.convert_tokens_to_ids(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
    )
    assert len(set(ids)) == 4 and (tokens.bos_token_id, tokens.eos_token_id, tokens.pad_token_id) == (
        ids[0],
        ids[1],
        ids[3],
    )
    assert build_generation_config(tokens).eos_token_id == ids[1:3]


def test_template_is_llama_3s_and_marks_the_answers(tiny_tokenizer):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    text = tiny_tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
    )
    out = tiny_tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert tiny_tokenizer.decode(marked) == "Hello<|eot_id|>"
    prompt = tiny_tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_same_texts_same_tokenizer_saved_and_loaded(tmp_path, tiny_tokenizer):
    again = train_tokenizer(iterate_mixture(400), vocab_size=512, max_digits=1, model_max_length=64)
    assert again.get_vocab() == tiny_tokenizer.get_vocab()
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    text = "What is 12 + 7?"
    assert loaded(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert loaded.chat_template == tiny_tokenizer.chat_template


def test_digits_share_tokens_only_as_far_as_asked():
    texts = ["1234 5678 1234 5678"] * 50
    assert all(len(t) == 1 for t in train_tokenizer(texts, 270, max_digits=1).tokenize("1234") if t.isdigit())
    assert any(len(t) == 3 for t in train_tokenizer(texts, 300, max_digits=3).tokenize("1234"))


def test_an_old_tokenizer_gives_its_algorithm_and_template_to_a_new_vocabulary(tiny_tokenizer):
    new = train_tokenizer(["zebra zebu zeppelin"] * 100, vocab_size=300, base=tiny_tokenizer)
    assert new.chat_template == tiny_tokenizer.chat_template and new.eos_token == tiny_tokenizer.eos_token
    assert len(new.tokenize("zebra")) < len(tiny_tokenizer.tokenize("zebra"))


def test_the_length_for_models_is_stored_beside_an_old_tokenizers_algorithm(tiny_tokenizer):
    texts = ["zebra zebu zeppelin"] * 100
    assert train_tokenizer(texts, 300, base=tiny_tokenizer, model_max_length=999).model_max_length == 999
    assert train_tokenizer(texts, 300, base=tiny_tokenizer).model_max_length == tiny_tokenizer.model_max_length
    assert train_tokenizer(texts, 300).model_max_length == 2048


@pytest.mark.parametrize("setting", ["max_digits", "min_frequency"])
def test_what_an_old_tokenizer_decides_can_not_be_set(tiny_tokenizer, setting):
    with pytest.raises(UserError, match=f"{setting}=3 has no effect with a base.*leave one of them out"):
        train_tokenizer(["zebra"], 300, base=tiny_tokenizer, **{setting: 3})


def test_a_long_stream_is_sampled_evenly_within_the_limit():
    stream = (f"{i:05d}" for i in range(20_000))
    sample = sample_texts(stream, 10_000, seed=1)
    assert sum(map(len, sample)) <= 10_000 and len(sample) > 700
    early = sum(int(text) < 10_000 for text in sample) / len(sample)
    assert 0.4 < early < 0.6


@pytest.mark.parametrize(
    ("texts", "size", "message"), [(["a"], 100, "vocab_size=100 must be at least 262"), ([], 512, "no text")]
)
def test_bad_input_is_named(texts, size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(texts, size)


def test_a_model_folder_with_it_has_no_code_and_no_pickle(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".jinja"}
    assert "auto_map" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    code = f"from transformers import AutoTokenizer; print(len(AutoTokenizer.from_pretrained({str(tmp_path)!r})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == len(tiny_tokenizer)
