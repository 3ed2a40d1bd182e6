"""Perplexity against direct computations: every token scored once, bytes of what is scored, other attentions by masks."""

import copy
import gzip
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tests.chats import turns
from tests.conftest import TINY, build_tiny, draw_clear_rows
from tokenizers import decoders
from transformers.models.doge import DogeConfig as PlainConfig
from transformers.models.doge import DogeForCausalLM as PlainModel
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation import perplexity
from small_doge.evaluation.perplexity import (
    compute_nats,
    discard_kept,
    group_windows,
    measure_perplexity,
    name_kept,
    plan_reading,
    score_windows,
)
from small_doge.evaluation.perplexity_sums import Sums, estimate_bits, make_edges
from small_doge.evaluation.perplexity_tables import list_facts
from small_doge.evaluation.scored_documents import (
    Document,
    DocumentReader,
    Window,
    cut_windows,
    join_documents,
    take_tokens,
)
from small_doge.inference import OnnxEngine, TorchEngine
from small_doge.inference.export import export_onnx
from small_doge.processor import ft_datasets_process
from small_doge.processor.measuring import count_scored_bytes
from small_doge.utils.errors import UserError


ANSWERS = ["Héllo 你好 🙂", "A much longer answer", "x"]
TEXT = "Ada has 12 red balls. Bo gives Ada 3 more.\n\nMia lives in Sandport, by the sea. " * 3


def whole(tokens):
    """A text as one window that is scored but for its first token."""
    tokens = np.asarray(tokens, dtype=np.int32)
    return Document(tokens, np.arange(len(tokens)) > 0, "text")


def direct_nats(logits, ids):
    return F.cross_entropy(logits[0, :-1].double(), ids[0, 1:], reduction="none").numpy()


@pytest.fixture
def engine(tiny_tokenizer):
    return TorchEngine(build_tiny(vocab_size=len(tiny_tokenizer)), tiny_tokenizer)


def by_attention(model, ids, name):
    document = whole(ids[0].tolist())
    windows = list(cut_windows(document, 0, len(document.tokens), len(document.tokens), None))
    ((_, nats),) = score_windows(TorchEngine(model), windows, name)
    return nats


# Log-likelihoods.


@torch.no_grad()
def test_nats_are_those_of_the_doge_of_transformers():
    settings = {**TINY, "keep_window_size": 64}
    plain = PlainModel(PlainConfig(**settings)).eval()
    ours = build_tiny(keep_window_size=64)
    ours.load_state_dict(plain.state_dict())
    ids = torch.randint(0, 97, (1, 40))
    (nats,) = compute_nats(ours, [ids[0].numpy()])
    np.testing.assert_allclose(nats, direct_nats(plain(ids).logits, ids), atol=1e-5)


@torch.no_grad()
def test_full_attention_is_that_of_the_doge_of_transformers_with_a_window_for_all_keys():
    ours = build_tiny()
    plain = PlainModel(PlainConfig(**{**TINY, "keep_window_size": 64})).eval()
    plain.load_state_dict(ours.state_dict())
    ids = torch.randint(0, 97, (1, 40))
    nats = by_attention(ours, ids, "full")
    np.testing.assert_allclose(nats, direct_nats(plain(ids).logits, ids), atol=1e-5)


@torch.no_grad()
def test_a_sliding_window_is_that_of_a_banded_mask():
    model, ids, window = build_tiny(), torch.randint(0, 97, (1, 40)), TINY["keep_window_size"]
    places = torch.arange(40)
    band = (places[None] <= places[:, None]) & (places[None] > places[:, None] - window)
    expected = direct_nats(model(ids, attention_mask=band[None, None], use_cache=False).logits, ids)
    nats = by_attention(model, ids, "sliding")
    np.testing.assert_allclose(nats, expected, atol=1e-5)
    dynamic = by_attention(model, ids, "dynamic")
    assert np.abs(nats - dynamic).max() > 1e-3  # another set of keys


@torch.no_grad()
def test_past_the_window_the_models_own_attention_is_its_reference():
    model = build_tiny()
    ids = draw_clear_rows(model, 1, 97, 40)
    before = by_attention(model, ids, "dynamic")
    by_attention(model, ids, "sliding")
    by_attention(model, ids, "full")
    model.set_attn_implementation("reference")
    np.testing.assert_allclose(before, direct_nats(model(ids, use_cache=False).logits, ids), atol=1e-5)
    np.testing.assert_allclose(before, by_attention(model, ids, "dynamic"), atol=1e-5)


def test_a_batch_of_any_windows_gives_what_each_gives_alone():
    model = build_tiny()
    rows = [np.random.default_rng(n).integers(0, 97, n).astype(np.int32) for n in (2, 30, 9, 30, 17)]
    together = compute_nats(model, rows)
    for row, nats in zip(rows, together, strict=True):
        np.testing.assert_allclose(nats, compute_nats(model, [row])[0], atol=1e-5)


def test_with_a_dynamic_rope_a_text_scores_the_same_after_longer_ones():
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = build_tiny(max_position_embeddings=16, rope_parameters=rope, keep_window_size=64)
    row, longer = (np.random.default_rng(n).integers(0, 97, n).astype(np.int32) for n in (17, 60))
    (before,) = compute_nats(model, [row])
    compute_nats(model, [longer])
    np.testing.assert_array_equal(compute_nats(model, [row])[0], before)


def test_windows_beyond_the_trained_length_are_computed_alone():
    windows = [Window(np.zeros(n + 1), np.ones(n), 0) for n in (30, 5, 40, 6, 16)]
    assert list(group_windows(windows, trained_length=16)) == [[1, 3, 4], [0], [2]]


def test_damaged_weights_are_told():
    model = build_tiny()
    model.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="weights are damaged"):
        compute_nats(model, [np.arange(5)])


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_an_export_gives_nearly_the_same(tiny_tokenizer, tmp_path, quantize):
    model = build_tiny(vocab_size=len(tiny_tokenizer), hidden_size=32)
    export_onnx(
        model, tiny_tokenizer, tmp_path / "export", quantize=quantize, texts=[TEXT] * 4, max_perplexity_increase=1.0
    )
    documents = list(read(tiny_tokenizer, tmp_path, [{"text": TEXT}, {"text": "Bo"}]))
    found = []
    for opened in (TorchEngine(model, tiny_tokenizer), OnnxEngine(tmp_path / "export", num_slots=1, threads=1)):
        result = measure_perplexity(opened, documents, plan_reading(opened, 40, 20, attentions=["dynamic"]))
        found.append(result["attentions"]["dynamic"])
    assert found[0]["tokens"] == found[1]["tokens"] and found[0]["bytes"] == found[1]["bytes"]
    assert found[1]["nats_per_token"] == pytest.approx(
        found[0]["nats_per_token"], rel=1e-5 if quantize == "none" else 0.02
    )


# Documents and their bytes.


def read(tokenizer, folder, rows, name="rows.jsonl", **how):
    path = folder / name
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return DocumentReader(tokenizer, **how).read(str(path))


def count_bytes(document, tokenizer):
    sums = Sums(1, len(document.tokens), tokenizer)
    (window,) = cut_windows(document, 0, len(document.tokens), len(document.tokens), None)
    sums.add(0, window, np.ones(len(window.scored)))
    return sums.by_window[0, 2]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_of_texts_all_bytes_are_scored_and_the_begin_token_is_not(tiny_tokenizer, tmp_path, name):
    documents = list(read(tiny_tokenizer, tmp_path, [{"text": text} for text in ANSWERS], name))
    for document, text in zip(documents, ANSWERS, strict=True):
        assert document.tokens[0] == tiny_tokenizer.bos_token_id and not document.scored[0]
        assert document.tokens[-1] == tiny_tokenizer.eos_token_id and document.scored[1:].all()
        assert count_bytes(document, tiny_tokenizer) == len(text.encode())


def test_of_conversations_the_answers_are_scored_as_training_does(tiny_tokenizer, tmp_path):
    rows = [{"messages": turns(f"A question of some length {i}", a)} for i, a in enumerate(ANSWERS)]
    documents = list(read(tiny_tokenizer, tmp_path, rows))
    assert [count_bytes(d, tiny_tokenizer) for d in documents] == [len(a.encode()) for a in ANSWERS]
    learnt = ft_datasets_process.mix_datasets_by_ratio(
        [{str(tmp_path / "rows.jsonl"): 1.0}],
        processing_class=tiny_tokenizer,
        max_length=256,
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    assert sum(int(d.scored.sum()) for d in documents) == sum(
        label != -100 for row in learnt for label in row["labels"]
    )
    assert sum(count_bytes(d, tiny_tokenizer) for d in documents) == count_scored_bytes(learnt, tiny_tokenizer)
    learnt.save_to_disk(str(tmp_path / "prepared"))
    again = list(DocumentReader(tiny_tokenizer).read(str(tmp_path / "prepared")))
    key = lambda document: (document.tokens.tolist(), document.scored.tolist())  # noqa: E731
    assert sorted(map(key, again)) == sorted(map(key, documents))


def test_a_file_of_plain_text_is_one_document_with_all_its_bytes(tiny_tokenizer, tmp_path):
    text = "\n" + "A line of a long book.\n\n" * 400 + "  The end.  \n"
    (tmp_path / "book.txt").write_text(text)
    (document,) = DocumentReader(tiny_tokenizer).read(str(tmp_path / "book.txt"))
    assert count_bytes(document, tiny_tokenizer) == len(text)
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="invalid UTF-8 at byte 3"):
        list(DocumentReader(tiny_tokenizer).read(str(tmp_path / "bad.txt")))


def test_rows_that_can_not_be_used_are_counted_with_the_reason(tiny_tokenizer, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "Ada"}\n{"other": 1}\nno json\n{"text": ""}\n')
    reader = DocumentReader(tiny_tokenizer)
    assert len(list(reader.read(str(tmp_path / "rows.jsonl")))) == 1
    assert sum(reader.failed.values()) == 3 and any("JSON" in reason for reason in reader.failed)
    with pytest.raises(UserError, match="did you mean 'conversation'"):
        DocumentReader(tiny_tokenizer, "conversations")


def test_rows_of_another_tokenizer_are_refused_as_training_refuses_them(tiny_tokenizer, tmp_path):
    rows = Dataset.from_list([{"input_ids": [0, 5, 6, 1], "seq_lengths": [4]}])
    rows.save_to_disk(str(tmp_path / "prepared"))
    tiny_tokenizer.save_pretrained(tmp_path / "prepared" / "tokenizer")
    for name in ("prepared", "prepared/data-00000-of-00001.arrow"):
        assert len(list(DocumentReader(tiny_tokenizer).read(str(tmp_path / name)))) == 1
    other = copy.deepcopy(tiny_tokenizer)
    other.add_tokens(["another"])
    other.save_pretrained(tmp_path / "prepared" / "tokenizer")
    for name in ("prepared", "prepared/data-00000-of-00001.arrow"):
        with pytest.raises(UserError, match=r"prepared.* were made with another tokenizer.*prepare them"):
            list(DocumentReader(tiny_tokenizer).read(str(tmp_path / name)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [0, 5]}, "input_ids and no seq_lengths"),
        ({"input_ids": [0, 5], "seq_lengths": None}, "input_ids and no seq_lengths"),
        ({"input_ids": [0, 1 << 20], "seq_lengths": [2]}, "token 1048576, and the tokenizer has 0 to"),
        ({"input_ids": [0, 1 << 32], "seq_lengths": [2]}, "token 4294967296, and"),
        ({"input_ids": [0, 5], "seq_lengths": [3]}, "no prepared row"),
        ({"input_ids": [0, -1], "seq_lengths": [2]}, "token -1, and"),
        ({"input_ids": ["Ada", "Bo"], "seq_lengths": [2]}, "no prepared row"),
    ],
)
def test_tokens_that_are_no_prepared_rows_of_the_model_are_refused(tiny_tokenizer, tmp_path, row, message):
    with pytest.raises(UserError, match=f"rows.jsonl.*{message}"):
        list(read(tiny_tokenizer, tmp_path, [row]))


# Windows.


@pytest.mark.parametrize(("context", "stride"), [(4, 4), (4, 1), (5, 3), (16, 16), (100, 7)])
@pytest.mark.parametrize("begin", [None, 99])
def test_each_token_is_scored_once_after_what_stands_before_it(context, stride, begin):
    document = whole(range(17))
    seen = []
    for window in cut_windows(document, 3, context, stride, begin):
        assert len(window.ids) - 1 <= context and window.document == 3
        targets = window.ids[1:]
        assert targets.tolist() == list(range(targets[0], targets[0] + len(targets)))
        assert window.ids[0] == (targets[0] - 1 if begin is None or targets[0] == 1 else begin)
        seen += targets[window.scored].tolist()
        if len(seen) > context:  # a later window has all the context that there is room for
            assert len(targets) == context or stride == context
    assert seen == list(range(1, 17))


def test_what_is_not_scored_stays_so_in_every_window():
    document = Document(np.arange(20, dtype=np.int32), np.arange(20) % 3 == 1, "text")
    found = [t for w in cut_windows(document, 0, 6, 2, 99) for t in w.ids[1:][w.scored].tolist()]
    assert found == [1, 4, 7, 10, 13, 16, 19]


def test_joined_documents_keep_their_borders_and_a_limit_cuts_the_last():
    documents = [whole(range(n)) for n in (4, 3, 5)]
    joined = join_documents(documents)
    assert joined.scored.tolist() == [False, True, True, True, False, True, True, False, True, True, True, True]
    taken = list(take_tokens(iter(documents), 4))
    assert [len(document.tokens) for document in taken] == [4, 2] and sum(d.scored.sum() for d in taken) == 4
    assert len(list(take_tokens(iter(documents), None))) == 3


def test_buckets_are_powers_of_two_and_hold_every_token():
    assert make_edges(15) == [1] and make_edges(100) == [1, 16, 32, 64] and make_edges(32768)[-2:] == [8192, 16384]


# Results.


def test_figures_are_those_of_all_tokens_and_bytes(engine, tiny_tokenizer, tmp_path):
    documents = list(read(tiny_tokenizer, tmp_path, [{"text": TEXT}, {"text": "Bo sings"}]))
    result = measure_perplexity(engine, documents, plan_reading(engine, 500))
    nats = np.concatenate([compute_nats(engine.backend.model, [d.tokens])[0] for d in documents])
    found = result["attentions"]["dynamic"]
    assert found["nats_per_token"] == pytest.approx(nats.mean()) and found["tokens"] == len(nats)
    assert found["perplexity"] == pytest.approx(math.exp(nats.mean()))
    size = len((TEXT + "Bo sings").encode())
    assert found["bytes"] == size and found["bits_per_byte"] == pytest.approx(nats.sum() / math.log(2) / size)
    assert sum(bucket["tokens"] for bucket in found["positions"]) == len(nats)
    assert list(result["attentions"]) == ["dynamic", "full", "sliding"]
    assert result["attentions"]["full"]["difference_bits_per_byte"] == pytest.approx(
        result["attentions"]["full"]["bits_per_byte"] - found["bits_per_byte"]
    )
    assert [entry["tokens"] for entry in result["sources"].values()] == [len(nats)]


def test_a_model_that_finds_all_tokens_alike_has_the_size_of_its_vocabulary_as_perplexity(engine, tiny_tokenizer):
    engine.backend.model.lm_head.weight.data.zero_()
    document = whole(tiny_tokenizer(TEXT)["input_ids"])
    for joined in (False, True):
        reading = plan_reading(engine, 30, 10, joined, ["full"])
        found = measure_perplexity(engine, [document, document], reading)["attentions"]["full"]
        assert found["perplexity"] == pytest.approx(len(tiny_tokenizer), rel=1e-5)
        assert all(b["perplexity"] == pytest.approx(len(tiny_tokenizer), rel=1e-5) for b in found["positions"])


def test_a_run_that_was_stopped_goes_on_after_its_last_whole_attention(engine, tiny_tokenizer, tmp_path, monkeypatch):
    documents = [whole(tiny_tokenizer(TEXT)["input_ids"])]
    reading = plan_reading(engine, 40)
    kept = name_kept(tmp_path, "model", documents, reading)
    expected = measure_perplexity(engine, documents, reading)
    real, asked = perplexity.score_windows, []

    def stop_at_second(engine, windows, name):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(engine, windows, name)

    monkeypatch.setattr(perplexity, "score_windows", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        measure_perplexity(engine, documents, reading, kept=kept)
    told = []
    assert measure_perplexity(engine, documents, reading, told.append, kept) == expected
    assert asked == ["dynamic", "full", "full", "sliding"]
    assert sum(told) == 3 * expected["attentions"]["dynamic"]["tokens"]
    assert name_kept(tmp_path, "model", documents, plan_reading(engine, 40, 20)) != kept
    discard_kept(kept)
    assert list(tmp_path.iterdir()) == []


def test_vocabularies_of_other_kinds_are_measured_by_their_texts(engine, tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.backend_tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    document = whole(tiny_tokenizer("Ada has 12 red balls")["input_ids"])
    assert count_bytes(document, other) == count_bytes(document, tiny_tokenizer) == len("Ada has 12 red balls")
    found = measure_perplexity(TorchEngine(engine.backend.model, other), [document], plan_reading(engine))
    row = found["attentions"]["dynamic"]
    assert row["bits_per_byte"] > 0 and row["positions"][0]["bits_per_byte"] is None


def test_the_error_is_that_of_a_ratio_and_shrinks_with_the_number_of_windows():
    random = np.random.default_rng(0)
    sizes = random.integers(50, 150, 4000).astype(float)
    windows = np.stack([random.normal(0.7 * sizes, 5), sizes / 4, sizes], axis=1)
    few, many = (estimate_bits(windows[:n]) for n in (40, 4000))
    assert many[0] == pytest.approx(0.7 / math.log(2), rel=0.01)
    assert many[1] == pytest.approx(5 / math.log(2) / 100 / 4000**0.5, rel=0.1)
    assert few[1] == pytest.approx(10 * many[1], rel=0.5)
    assert estimate_bits(windows[:1])[1] is None and estimate_bits(np.zeros((3, 3))) == (None, None)


def test_what_can_not_be_measured_is_refused_with_the_remedy(engine):
    with pytest.raises(UserError, match="stride=9 must lie between 1 and context=8"):
        plan_reading(engine, 8, 9)
    with pytest.raises(UserError, match="did you mean 'sliding'"):
        plan_reading(engine, attentions=["slidin"])
    assert plan_reading(engine).context == engine.trained_length
    assert plan_reading(engine, 8).attentions == ("dynamic",)  # as long as the window: all are alike
    silent = Document(np.arange(4, dtype=np.int32), np.zeros(4, dtype=bool), "text")
    reading = plan_reading(engine)
    with pytest.raises(UserError, match="no token to score"):
        measure_perplexity(engine, [silent], reading)


def test_the_command_shows_and_writes_the_figures(tiny_tokenizer, tmp_path):
    folder = tmp_path / "model"
    build_tiny(vocab_size=len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    list(read(tiny_tokenizer, tmp_path, [{"no": 1}, {"text": "Ada sings"}]))
    (tmp_path / "b.txt").write_text(TEXT)
    files = [str(tmp_path / "rows.jsonl"), str(tmp_path / "b.txt")]
    done = CliRunner().invoke(
        app, ["eval", "perplexity", str(folder), *files, "--max-tokens", "100", "--context", "50"]
    )
    assert done.exit_code == 0, done.output
    assert "sliding" in done.output and "1 rows left out" in done.output and "b.txt" in done.output
    result = json.loads((folder / "perplexity" / "perplexity.json").read_text())
    assert result["attentions"]["dynamic"]["tokens"] == 100 and result["model_hash"]
    written = (folder / "perplexity" / "perplexity.md").read_text()
    assert "Only the first 100 tokens" in written and "![Perplexity by position](perplexity.png)" in written
    assert (folder / "perplexity" / "perplexity.png").stat().st_size > 5000
    for factor, is_worse in ((0.99, False), (1.01, True)):
        own = {**result["attentions"]["dynamic"], "nats_per_token": factor * math.log(result["vocab_size"])}
        facts = list_facts({**result, "attentions": {"dynamic": own}})
        assert any("the tokenizer another model's" in fact for fact in facts) == is_worse
    empty = CliRunner().invoke(app, ["eval", "perplexity", str(folder), str(tmp_path / "none.txt")])
    assert "there is no file or folder" in str(empty.exception)
