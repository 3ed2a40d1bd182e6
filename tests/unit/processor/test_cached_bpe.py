import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from small_doge.processor.cached_bpe import CachedTokenizer
from small_doge.processor.tokenizer import train_tokenizer


TEXTS = [
    "It's the wolf's 2,345 sheep; they'll RUN...\n\n  \tdef f(x):\r\n    return x_1  # no\n",
    "Zürich, 東京, «да», 12½ €",
]
# Letters, digits, marks and spaces of many scripts, contractions, and what `re` and the tokenizer may judge differently.
PIECES = st.sampled_from(
    [
        "'s",
        "'LL",
        "'ve",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "_",
        "__",
        "1",
        "234567",
        "a",
        "Abc",
        "...",
        "-",
        "é",
        "é",
        "ß",
        "ſ",
        "'ſ",
        "K",
        "½",
        "²",
        "Ⅷ",
        "٣",
        "म",
        "्",
        "東",
        "\u200b",
        "\xa0",
        "\u2003",
        "\u2028",
        "\x85",
        "\x1c",
        "\x00",
        "\x0b",
        "🙂",
        "\u180e",
        "\ufeff",
        "<|eot_id|>",
        "<|",
        "’s",
        "—",
        "İ",
        "ı",
        "ﬅ",
        "𐞀",
        "\u0378",
        "ƛ",
    ]
)


@pytest.fixture(scope="module", params=[1, 3])
def tokenizer(request):
    return train_tokenizer(TEXTS * 20, 400, max_digits=request.param).backend_tokenizer


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=25), noise=st.text(max_size=10))
def test_tokens_are_those_of_tokenizers(tokenizer, pieces, noise):
    text = "".join(pieces) + noise
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    expected = plain.encode(text, add_special_tokens=False).ids
    assert CACHED.setdefault(id(tokenizer), CachedTokenizer(tokenizer)).encode([text])[0].tolist() == expected


CACHED: dict = {}


def test_words_are_remembered_and_unsure_texts_are_not_split_here(tokenizer):
    cached = CachedTokenizer(tokenizer)
    assert cached.serves
    cached.encode(["the sheep the sheep", "Zürich"])
    assert len(cached._words) >= 4
    assert cached._split("the\x00") is None and cached._split("½") is None


def test_special_tokens_that_a_text_spells_out_are_text(tokenizer):
    end = tokenizer.token_to_id("<|eot_id|>")
    cached = CachedTokenizer(tokenizer)
    for text in ("a<|eot_id|>", "½<|eot_id|>"):  # by the memory, and by `tokenizers`
        ids = cached.encode([text])[0].tolist()
        assert end not in ids and tokenizer.decode(ids, skip_special_tokens=False) == text
    assert end in tokenizer.encode("a<|eot_id|>").ids


def test_another_kind_of_tokenizer_is_left_to_tokenizers(tokenizer):
    for change in ({"normalizer": {"type": "NFC"}}, {"pre_tokenizer": None}):
        specification = json.loads(tokenizer.to_str()) | change
        other = Tokenizer.from_str(json.dumps(specification))
        cached = CachedTokenizer(other)
        assert not cached.serves
        assert [ids.tolist() for ids in cached.encode(TEXTS)] == [
            e.ids for e in other.encode_batch(TEXTS, add_special_tokens=False)
        ]


def test_truncation_that_was_saved_does_not_cut_documents(tokenizer):
    other = Tokenizer.from_str(tokenizer.to_str())
    other.enable_truncation(3)
    assert len(CachedTokenizer(other).encode([TEXTS[0]])[0]) > 3
