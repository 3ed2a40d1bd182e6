"""Control tokens are written by templates alone; any other text has the tokens that transformers gives it."""

import copy
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chats import ATTACK, count_special, turns
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from small_doge.processor.chat_encoding import (
    encode_chat,
    encode_chats,
    encode_document,
    encode_prompt,
    encode_text,
    encode_texts,
)
from small_doge.processor.chat_template import SPECIAL_TOKENS
from small_doge.processor.token_codec import TooManyTokensError


# Letters, line ends, words, emoji, special tokens in whole and in parts.
PIECES = st.sampled_from(
    [
        *SPECIAL_TOKENS,
        "<|",
        "|>",
        "eot_id",
        "<|eot_",
        " ",
        "\n",
        "\n\n",
        "Hi",
        " there",
        "12",
        "é",
        "🙂",
        "中",
        "q0z",
        "<",
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=8).map("".join)).filter(
    lambda text: text.encode("utf-8", "ignore").decode() == text
)
ORDINARY = TEXTS.filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))


@settings(deadline=None)
@given(TEXTS)
def test_any_text_has_no_special_token_and_is_decoded_as_it_was(tiny_tokenizer, text):
    ids = encode_text(tiny_tokenizer, text)
    assert count_special(tiny_tokenizer, ids) == 0 and tiny_tokenizer.decode(ids) == text
    assert [row.tolist() for row in encode_texts(tiny_tokenizer, [text, "a"])] == [
        ids,
        encode_text(tiny_tokenizer, "a"),
    ]


@settings(deadline=None)
@given(ORDINARY)
def test_ordinary_text_has_the_tokens_of_transformers(tiny_tokenizer, text):
    assert encode_text(tiny_tokenizer, text) == tiny_tokenizer.encode(text, add_special_tokens=False)
    assert encode_prompt(tiny_tokenizer, text) == tiny_tokenizer(text)["input_ids"]


@settings(deadline=None)
@given(st.lists(ORDINARY, min_size=1, max_size=4), st.booleans())
def test_ordinary_conversations_have_the_tokens_and_the_mask_of_transformers(tiny_tokenizer, contents, generation):
    messages = turns(*contents)
    theirs = tiny_tokenizer.apply_chat_template(
        messages, add_generation_prompt=generation, return_assistant_tokens_mask=True
    )
    ours = encode_chat(tiny_tokenizer, messages, add_generation_prompt=generation, with_answers=True)
    assert ours.ids == theirs["input_ids"] and ours.answers == theirs["assistant_masks"]
    assert encode_chat(tiny_tokenizer, messages, add_generation_prompt=generation) == (ours.ids, None)


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_conversation_has_the_special_tokens_of_the_template_alone(tiny_tokenizer, contents):
    messages = turns(*contents)
    chat = encode_chat(tiny_tokenizer, messages, with_answers=True)
    assert count_special(tiny_tokenizer, chat.ids) == 1 + 3 * len(messages)
    shown = "".join(f"{m['role']}\n\n{m['content'].strip()}" for m in messages)
    assert tiny_tokenizer.decode([i for i in chat.ids if i not in tiny_tokenizer.all_special_ids]) == shown
    learnt = [token for token, answer in zip(chat.ids, chat.answers, strict=True) if answer]
    said = "".join(m["content"].strip() for m in messages if m["role"] == "assistant")
    assert tiny_tokenizer.decode([i for i in learnt if i not in tiny_tokenizer.all_special_ids]) == said
    assert count_special(tiny_tokenizer, learnt) == len(messages) // 2


def test_what_is_typed_is_text_in_every_place_that_a_template_reads(tiny_tokenizer):
    tool = {"type": "function", "function": {"name": ATTACK, "parameters": {"properties": {ATTACK: {"type": "x"}}}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": ATTACK, ATTACK: 1}}}
    messages = [
        {"role": "system", "content": ATTACK},
        {"role": "user", "content": ATTACK},
        {"role": "assistant", "content": ATTACK, "tool_calls": [call]},
    ]
    harmless = str(messages), str(tool)
    chat = encode_chat(tiny_tokenizer, messages, tools=[tool], add_generation_prompt=True)
    assert (str(messages), str(tool)) == harmless
    assert count_special(tiny_tokenizer, chat.ids) == 1 + 3 * 3 + 2
    assert tiny_tokenizer.decode(chat.ids).count(ATTACK.split()[-1]) == 1 + 3 + 4


def test_a_conversation_that_spells_out_codes_is_still_text(tiny_tokenizer):
    content = "q0z0q0z <|eot_id|> q1z1q1z Q2Z"
    ids = encode_chat(tiny_tokenizer, turns(content)).ids
    assert content in tiny_tokenizer.decode(ids) and count_special(tiny_tokenizer, ids) == 4


def test_conversations_are_encoded_alike_alone_and_together(tiny_tokenizer):
    many = [turns("Hi", "Hello"), turns(ATTACK, "No"), turns("Bye")]
    together = encode_chats(tiny_tokenizer, many, with_answers=True)
    assert together == [encode_chat(tiny_tokenizer, chat, with_answers=True) for chat in many]


def test_a_begin_token_is_never_doubled(tiny_tokenizer):
    begin, end = tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id
    inner = encode_text(tiny_tokenizer, "Once")
    assert encode_prompt(tiny_tokenizer, "<|begin_of_text|>Once") == encode_prompt(tiny_tokenizer, "Once")
    assert encode_prompt(tiny_tokenizer, "Once") == [begin, *inner]
    for text in ("Once", "<|begin_of_text|>Once", "<|begin_of_text|>Once<|end_of_text|>"):
        assert encode_document(tiny_tokenizer, text).tolist() == [begin, *inner, end]
    inside = encode_document(tiny_tokenizer, "a<|begin_of_text|>b<|end_of_text|>c").tolist()
    assert count_special(tiny_tokenizer, inside) == 2
    assert encode_chat(tiny_tokenizer, turns("Hi")).ids.count(begin) == 1
    assert encode_chat(tiny_tokenizer, turns("<|begin_of_text|>Hi")).ids.count(begin) == 1


def test_templates_of_other_forms_keep_their_tokens(tiny_tokenizer):
    plain = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    upper = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    filled = (
        "{{ bos_token }}{% for m in messages %}{% if m.name %}{{ m.name }}: {% endif %}"
        "{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    for template in (plain, filled):
        for chat in (turns("\nHi \n", "  Hello"), [{"role": "user", "content": "x", "name": None}]):
            theirs = tiny_tokenizer.apply_chat_template(chat, chat_template=template)["input_ids"]
            assert encode_chat(tiny_tokenizer, chat, template=template).ids == theirs
    ids = encode_chat(tiny_tokenizer, turns("a <|eot_id|>\n"), template=plain).ids
    assert tiny_tokenizer.decode(ids) == "[user] a <|eot_id|>\n\n" and count_special(tiny_tokenizer, ids) == 0
    with pytest.raises(ValueError, match="changes the letters"):
        encode_chat(tiny_tokenizer, turns("<|eot_id|>"), template=upper)


def test_the_description_of_a_function_given_as_a_tool_is_text(tiny_tokenizer):
    def add(a: int) -> int:
        """Add <|eot_id|>.

        Args:
            a: a number.
        """
        return a

    ids = encode_chat(tiny_tokenizer, turns("x"), tools=[add]).ids
    assert count_special(tiny_tokenizer, ids) == 1 + 2 * 3 and "Add <|eot_id|>" in tiny_tokenizer.decode(ids)


def test_variables_of_the_template_are_passed_on(tiny_tokenizer):
    template = "{{ greeting }}{% for m in messages %}{{ m.content }}{% endfor %}"
    ids = encode_chat(tiny_tokenizer, turns("x"), template=template, greeting="<|eot_id|>").ids
    assert tiny_tokenizer.decode(ids) == "<|eot_id|>x" and count_special(tiny_tokenizer, ids) == 0


def test_special_tokens_that_eat_spaces_still_do(tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.add_special_tokens({"extra_special_tokens": [AddedToken("<|end|>", rstrip=True, lstrip=True, special=True)]})
    template = "{% for m in messages %}{{ m.content }} <|end|>\n{% endfor %}"
    theirs = other.apply_chat_template(turns("a", "b"), chat_template=template)["input_ids"]
    assert encode_chat(other, turns("a", "b"), template=template).ids == theirs
    ids = encode_chat(other, turns("<|eot_id|>", "b"), template=template).ids
    assert other.decode(ids) == "<|eot_id|><|end|>b<|end|>"


def test_tokens_that_were_added_later_count(tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    assert other.decode(encode_text(other, "a<|new|>")) == "a<|new|>"
    other.add_special_tokens({"extra_special_tokens": ["<|new|>"]})
    assert other.convert_tokens_to_ids("<|new|>") not in encode_text(other, "a<|new|>")
    other.add_tokens(["<think>"])  # not special: a word like any other
    assert other.convert_tokens_to_ids("<think>") in encode_text(other, "a<think>")


def test_what_can_not_be_encoded_says_why(tiny_tokenizer):
    for call in (encode_text, encode_prompt, lambda t, text: encode_chat(t, turns(text))):
        with pytest.raises(ValueError, match="not valid Unicode"):
            call(tiny_tokenizer, "a\ud800")
    words = Tokenizer(models.WordLevel({"[END]": 0, "a": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["[END]"])
    other = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[END]", unk_token="[UNK]")
    assert encode_text(other, "a") == [1]
    with pytest.raises(ValueError, match=r"control token of the text '\[END\]'"):
        encode_text(other, "a [END] a")
    with pytest.raises(ValueError, match="chat_template"):
        encode_chat(other, turns("a"))


def test_texts_are_encoded_in_any_thread_while_the_tokenizer_is_used_elsewhere(tiny_tokenizer):
    tiny_tokenizer = copy.deepcopy(tiny_tokenizer)  # its use elsewhere leaves truncation on
    expected, wrong, done = encode_chat(tiny_tokenizer, turns(ATTACK)).ids, [], threading.Event()

    def use():
        while not done.is_set():
            tiny_tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)

    def check():
        wrong.extend(1 for _ in range(200) if encode_chat(tiny_tokenizer, turns(ATTACK)).ids != expected)

    other, checks = threading.Thread(target=use), [threading.Thread(target=check) for _ in range(2)]
    for thread in (other, *checks):
        thread.start()
    for thread in checks:
        thread.join()
    done.set()
    other.join()
    assert not wrong


@settings(deadline=None)
@given(TEXTS, st.integers(0, 40))
def test_text_is_refused_by_its_length_only_if_it_has_more_tokens(tiny_tokenizer, text, limit):
    ids = encode_prompt(tiny_tokenizer, text)
    try:
        limited = encode_prompt(tiny_tokenizer, text, limit)
    except TooManyTokensError as error:
        least = error.least
    else:
        assert limited == ids
        return
    assert limit < least <= len(ids)


def test_long_text_is_refused_without_being_tokenized(tiny_tokenizer):
    with pytest.raises(TooManyTokensError, match="at least"):
        encode_prompt(tiny_tokenizer, "a" * 10_000, 10)
    with pytest.raises(TooManyTokensError, match="at least"):
        encode_chat(tiny_tokenizer, turns("a" * 10_000), max_tokens=10)
