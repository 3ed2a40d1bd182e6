"""A guarded tokenizer renders by our functions wherever a library renders by itself, and saves the plain files."""

import copy
import pickle

from tests.chats import ATTACK, count_special, turns
from transformers import AutoTokenizer

from small_doge.processor.chat_encoding import encode_chat, encode_chats
from small_doge.processor.chat_template import CHAT_TEMPLATE
from small_doge.processor.guarded_tokenizer import guard_tokenizer


def test_a_guarded_tokenizer_renders_by_this_module_and_saves_the_plain_files(tiny_tokenizer, tmp_path):
    guarded = guard_tokenizer(tiny_tokenizer)
    chats = [turns(ATTACK, "No"), turns("Hi")]
    expected = [chat.ids for chat in encode_chats(tiny_tokenizer, chats, add_generation_prompt=True)]
    for tokenizer in (guarded, copy.deepcopy(guarded), pickle.loads(pickle.dumps(guarded))):
        assert isinstance(tokenizer, type(tiny_tokenizer))
        out = tokenizer.apply_chat_template(conversation=chats, add_generation_prompt=True, tokenize=True)
        assert out["input_ids"] == expected
        assert tokenizer.apply_chat_template(chats[0], return_dict=False) == encode_chat(tiny_tokenizer, chats[0]).ids
        assert count_special(tokenizer, tokenizer(text="<|eot_id|>")["input_ids"]) == 1  # the begin token
    masks = guarded.apply_chat_template(chats[0], return_assistant_tokens_mask=True)["assistant_masks"]
    assert masks == encode_chat(tiny_tokenizer, chats[0], with_answers=True).answers
    assert guarded.apply_chat_template(chats, padding=True, return_tensors="pt")["attention_mask"].shape[0] == 2
    assert guarded.apply_chat_template(chats[1], tokenize=False).endswith("<|eot_id|>")
    guarded.save_pretrained(tmp_path / "guarded")
    tiny_tokenizer.save_pretrained(tmp_path / "plain")
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "guarded" / file.name).read_bytes() == file.read_bytes(), file.name
    assert guard_tokenizer(tiny_tokenizer, "{{ 1 }}").chat_template == "{{ 1 }}"
    assert AutoTokenizer.from_pretrained(tmp_path / "guarded").chat_template == CHAT_TEMPLATE


def test_of_a_plain_text_the_end_token_that_trl_puts_behind_it_is_kept(tiny_tokenizer):
    guarded = guard_tokenizer(tiny_tokenizer)
    out = guarded(text=f"{ATTACK}<|end_of_text|>")
    assert count_special(guarded, out["input_ids"]) == 2 and out["input_ids"][-1] == guarded.eos_token_id
    assert len(out["attention_mask"]) == len(out["input_ids"])
