"""Streamed pieces of text are the text: whole characters, and nothing from a stop text on."""

from hypothesis import given, settings
from hypothesis import strategies as st

from small_doge.inference.detokenizer import Detokenizer


def stream(tokenizer, text, stop=()):
    decoder = Detokenizer(tokenizer, stop)
    pieces = [decoder.push(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    return pieces, decoder.finish(), decoder


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40))
def test_streamed_pieces_are_the_text(tiny_tokenizer, text):
    pieces, rest, _ = stream(tiny_tokenizer, text)
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces) + rest == tiny_tokenizer.decode(ids, skip_special_tokens=True)


def test_half_characters_are_never_given_out(tiny_tokenizer):
    pieces, _, _ = stream(tiny_tokenizer, "naïve 日本語 🐶 done")
    assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="ab\n", max_size=30), stop=st.text(alphabet="ab\n", min_size=1, max_size=4))
def test_nothing_from_a_stop_text_on_is_given_out(tiny_tokenizer, text, stop):
    pieces, rest, decoder = stream(tiny_tokenizer, text, [stop])
    assert "".join(pieces) + rest == text.split(stop)[0] == decoder.text
    assert decoder.stopped == (stop if stop in text else None)
