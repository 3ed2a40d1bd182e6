"""Looking into a model through the server."""

import httpx
import pytest


HELLO = [{"role": "user", "content": "Where does Ada live?"}]


def test_inspection_is_the_engines(server, engine):
    ids = engine.encode("Ada lives in Paris. " * 4)
    expected = engine.inspect(ids, top=3)
    found = httpx.post(f"{server}/api/v1/inspect", json={"tokens": ids, "top": 3}).json()
    assert [token["id"] for token in found["tokens"]] == ids
    assert found["tokens"][0]["logprob"] is None
    assert found["tokens"][0]["top"] == []
    for token, known in zip(found["tokens"][1:], expected.tokens[1:], strict=True):
        assert token["logprob"] == pytest.approx(known.logprob, abs=1e-4)
        assert [entry["id"] for entry in token["top"]] == list(known.top_logprobs)
        assert token["piece"] == engine.piece(known.id)
    assert (found["num_layers"], found["keep_window_size"]) == (len(found["kept"]), 24)
    for heads, known_heads in zip(found["kept"], expected.kept, strict=True):
        assert len(heads) == found["num_kv_heads"]
        for head, known in zip(heads, known_heads, strict=True):
            assert head["positions"] == known.positions
            assert head["scores"] == pytest.approx(known.scores, abs=1e-4)
            assert len(head["positions"]) <= 24


@pytest.mark.parametrize("given", [{"content": "Ada"}, {"messages": HELLO}])
def test_texts_and_conversations_are_looked_into(server, engine, given):
    ids = engine.encode("Ada") if "content" in given else engine.render(HELLO)
    found = httpx.post(f"{server}/api/v1/inspect", json=given).json()
    assert [token["id"] for token in found["tokens"]] == ids
    assert len(found["tokens"][-1]["top"]) == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of tokens"),
        ({"tokens": [5], "content": "Ada"}, "one of tokens"),
        ({"tokens": []}, "tokens is empty"),
        ({"tokens": [100_000]}, "tokens holds token 100000"),
        ({"content": "Ada", "top": -1}, "top"),
        ({"content": "Ada", "top": 101}, "top"),
        ({"content": 3}, "content"),
    ],
)
def test_what_cannot_be_done_is_said(server, given, said):
    response = httpx.post(f"{server}/api/v1/inspect", json=given)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
