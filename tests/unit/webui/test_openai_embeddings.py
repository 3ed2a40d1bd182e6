"""`/v1/embeddings`, through OpenAI's own client."""

import base64
import shutil

import httpx
import numpy as np
import openai
import pytest
from tests.webui import run_app


TEXT = "Ada lives in Paris."


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


def embed_alone(engine, ids):
    vector = engine.embed(ids)
    return vector / np.linalg.norm(vector)


def test_inputs_of_every_form_are_embedded(client, engine):
    ids = engine.encode(TEXT)
    expected = embed_alone(engine, ids)
    for given, count in ((TEXT, 1), ([TEXT, "Bob"], 2), (ids, 1), ([ids, [5, 6]], 2)):
        answer = client.embeddings.create(model="doge", input=given)
        assert len(answer.data) == count
        np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-5)
        assert [entry.index for entry in answer.data] == list(range(count))
        assert answer.usage.total_tokens == answer.usage.prompt_tokens >= len(ids)


def test_more_inputs_than_slots_keep_their_order(client, engine):
    texts = [f"Number {number}" for number in range(20)]
    answer = client.embeddings.create(model="doge", input=texts)
    for text, entry in zip(texts, answer.data, strict=True):
        np.testing.assert_allclose(entry.embedding, embed_alone(engine, engine.encode(text)), atol=1e-5)
    assert answer.usage.prompt_tokens == sum(len(engine.encode(text)) for text in texts)


def test_base64_holds_the_same_numbers(server):
    encoded, plain = (
        httpx.post(f"{server}/v1/embeddings", json={"input": TEXT, "encoding_format": form}).json()["data"][0]
        for form in ("base64", "float")
    )
    decoded = np.frombuffer(base64.b64decode(encoded["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(decoded, np.array(plain["embedding"], dtype=np.float32))


def test_only_the_models_own_size_is_given(client):
    size = len(client.embeddings.create(model="doge", input=TEXT).data[0].embedding)
    assert client.embeddings.create(model="doge", input=TEXT, dimensions=size).data


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ({"dimensions": 8}, "can't be cut", "dimensions"),
        ({"input": []}, "0 inputs", "input"),
        ({"input": ["x"] * 2049}, "2049 inputs", "input"),
        ({"input": [[]]}, "input is empty", "input"),
        ({"input": [100_000]}, "input holds token 100000", "input"),
        ({"extra_body": {"encoding_format": "hex"}}, "encoding_format", "encoding_format"),
        ({"extra_body": {"input": 3}}, "input", None),
    ],
)
def test_what_cannot_be_done_is_said(client, given, said, param):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.embeddings.create(**{"model": "doge", "input": TEXT, **given})
    assert param is None or caught.value.param == param


def test_a_size_that_can_t_be_had_is_refused_before_anything_is_computed(models_dir):
    with run_app(models=(str(models_dir / "doge"),), threads=1) as (address, _):
        response = httpx.post(f"{address}/v1/embeddings", json={"input": TEXT, "dimensions": 8}, timeout=30)
        assert response.status_code == 400
        assert "smalldoge_requests_total{" not in httpx.get(f"{address}/metrics").text


def test_export_of_an_older_version_is_told(models_dir, tmp_path):
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "old"
    shutil.copytree(models_dir / "doge", folder)
    graph = onnx.load(folder / "model.onnx")
    (hidden,) = [output for output in graph.graph.output if output.name == "hidden_states"]
    graph.graph.output.remove(hidden)
    onnx.save(graph, folder / "model.onnx")
    with run_app(models=(str(folder),), threads=1) as (address, _):
        response = httpx.post(f"{address}/v1/embeddings", json={"input": TEXT}, timeout=30)
    assert response.status_code == 400
    assert "export the model again" in response.json()["error"]["message"]
