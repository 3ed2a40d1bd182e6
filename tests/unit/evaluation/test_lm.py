"""Scores of our engines as the harness asks for them: equal to a direct computation, in any order, with any shared beginning."""

import math
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from tests.conftest import build_tiny

from small_doge.evaluation import generating
from small_doge.evaluation.generating import choose_batch_size
from small_doge.evaluation.lm import NO_SCORE, EngineLM
from small_doge.evaluation.scoring import LEAST_SHARED, ScoredText, score_texts
from small_doge.inference import OnnxEngine, TorchEngine
from small_doge.inference.export import export_onnx
from small_doge.utils.errors import UserError


CONTEXT = "Ada lives in the old town by the river, and every morning she"


def ask(kind, *arguments):
    return [Instance(kind, {}, given, 0) for given in arguments]


def score(lm, *pairs):
    return lm.loglikelihood(ask("loglikelihood", *pairs))


@torch.no_grad()
def compute(model, text):
    """The log-probabilities of a text by one forward pass over the whole, and whether each token is the likeliest."""
    ids = torch.tensor([[*text.context, *text.continuation]])
    rows = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
    start, end = len(text.context) - 1, ids.shape[1] - 1
    targets = ids[0, start + 1 :]
    return rows[start:end].gather(-1, targets[:, None])[:, 0].numpy(), bool(
        (rows[start:end].argmax(-1) == targets).all()
    )


def draw_texts(vocab_size, count=24, seed=0):
    """Texts many of which share their beginnings, at several depths, some of them wholly."""
    rng = random.Random(seed)
    stem = [rng.randrange(vocab_size) for _ in range(60)]
    texts = []
    for _ in range(count):
        context = stem[: rng.choice([1, 3, LEAST_SHARED, 20, 40, 60])]
        context = context + [rng.randrange(vocab_size) for _ in range(rng.choice([0, 0, 1, 5, 12]))]
        continuation = [rng.randrange(vocab_size) for _ in range(rng.choice([1, 2, 7, 70]))]
        texts.append(ScoredText(tuple(context), tuple(continuation)))
    return texts + texts[:2]


@pytest.fixture(scope="module")
def models(tiny_tokenizer, tmp_path_factory):
    """The same tiny model by PyTorch and by ONNX Runtime, whose texts are longer than it keeps keys of."""
    torch.manual_seed(3)
    model = build_tiny(vocab_size=len(tiny_tokenizer), max_position_embeddings=256)
    folder = tmp_path_factory.mktemp("lm")
    export_onnx(model, tiny_tokenizer, folder / "export", quantize="none")
    return model, {
        "torch": TorchEngine(model, tiny_tokenizer, num_slots=4),
        "onnx": OnnxEngine(folder / "export", num_slots=4, threads=1),
    }


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_log_likelihoods_are_those_of_a_direct_computation_in_any_order(models, kind):
    model, engines = models
    texts = draw_texts(model.config.vocab_size)
    for seed in (0, 1):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        for place, found in zip(order, score_texts(engines[kind], [texts[place] for place in order]), strict=True):
            logprobs, is_greedy = compute(model, texts[place])
            np.testing.assert_allclose(found.logprobs, logprobs, atol=2e-4)
            assert found.is_greedy == is_greedy


def test_a_shared_beginning_is_computed_once(rigged):
    engine = rigged()
    stem = tuple(range(40))
    texts = [ScoredText((*stem, item, 1), (choice, 2)) for item in range(10, 15) for choice in (5, 6)]
    score_texts(engine, texts)
    assert engine.backend.num_computed <= len(stem) + len(texts) * 4
    assert engine.backend.slots[0] == ()


def test_scoring_twice_and_among_others_gives_the_same(models):
    _, engines = models
    lm = EngineLM(engines["torch"])
    pairs = [(CONTEXT, f" {word}") for word in ("walks", "sleeps", "reads a book", "read")]
    alone = [score(lm, pair)[0][0] for pair in pairs]
    assert [total for total, _ in score(lm, *pairs)] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_batch_of_any_size_gives_what_a_text_alone_gives(models, kind, batch_size):
    """Texts that share nothing, past the window too, computed together from their beginnings."""
    model, engines = models
    rng = random.Random(1)
    draw = [tuple(rng.randrange(model.config.vocab_size) for _ in range(length)) for length in (3, 90, 40, 7, 41, 88)]
    texts = [ScoredText(tokens[: 1 + number], tokens[1 + number :]) for number, tokens in enumerate(draw)]
    texts.append(ScoredText((1, 2), ()))
    alone = [score_texts(engines[kind], [text])[0] for text in texts]
    together = score_texts(engines[kind], texts, batch_size=batch_size)
    for text, one, other in zip(texts, alone, together, strict=True):
        np.testing.assert_allclose(other.logprobs, one.logprobs, atol=1e-5)
        assert one.is_greedy == other.is_greedy
        np.testing.assert_allclose(other.logprobs, compute(model, text)[0], atol=2e-4)
    assert engines[kind].backend.get_length(0) == 0


def test_a_text_that_shares_little_is_computed_from_its_beginning(rigged):
    engine = rigged()
    engine.backend.tokens_per_call = 8
    calls = []
    engine.backend.compute_texts = lambda ids, keep, real=engine.backend.compute_texts: (
        calls.append(ids.shape) or real(ids, keep)
    )
    stem = tuple(range(5))
    score_texts(engine, [ScoredText((*stem, item), (7,)) for item in range(10, 14)], batch_size=2)
    assert calls == [(2, 6), (2, 6)]
    score_texts(engine, [ScoredText((*stem, 5, 6, 8, item), (7,)) for item in range(10, 14)])
    assert len(calls) == 2


def test_a_whole_turn_is_scored_with_the_tokens_that_end_it(rigged):
    lm = EngineLM(rigged())
    question = [{"role": "user", "content": "Who?"}]
    context = lm.apply_chat_template(question)
    begin, plain = lm._encode_pair(context, "Ada")
    lm.ends_turn = True
    again, turn = lm._encode_pair(context, "Ada")
    answer = {"role": "assistant", "content": "Ada"}
    assert again == begin and begin + turn == lm.engine.render([*question, answer], add_generation_prompt=False)
    assert turn[: len(plain)] == plain and len(turn) > len(plain)


def test_whether_answers_ended_is_known_and_counted(rigged):
    lm = EngineLM(rigged("Ada reads, and more", end_after=["Bo"]), batch_size=2)
    ends = {"until": [","], "max_gen_toks": 2}
    lm.generate_until(ask("generate_until", ("Ada reads", ends), ("Bo", ends), ("Cy", ends)))
    assert lm.has_ended == [True, True, False] and lm.notes.num_unended == 1


def test_the_begin_token_stands_at_the_beginning_once(rigged, tiny_tokenizer):
    lm = EngineLM(rigged())
    begin = tiny_tokenizer.bos_token_id
    for text in ("a word", f"{tiny_tokenizer.bos_token}a word"):
        assert lm.tok_encode(text).count(begin) == 1 and lm.tok_encode(text)[0] == begin
    assert begin not in lm.tok_encode("a word", add_special_tokens=False)
    chat = lm.apply_chat_template([{"role": "user", "content": "Who?"}])
    assert lm.tok_encode(chat).count(begin) <= 1
    assert lm.tok_encode(chat) == lm.engine.render([{"role": "user", "content": "Who?"}])


def test_what_a_message_spells_out_is_no_control_token(rigged, tiny_tokenizer):
    lm = EngineLM(rigged())
    end = tiny_tokenizer.eos_token
    plain = lm.tok_encode(lm.apply_chat_template([{"role": "user", "content": "so"}]))
    spelled = lm.tok_encode(lm.apply_chat_template([{"role": "user", "content": f"so {end}"}]))
    assert spelled.count(tiny_tokenizer.eos_token_id) == plain.count(tiny_tokenizer.eos_token_id)


def test_a_text_without_context_is_scored_after_the_begin_token(rigged):
    engine = rigged("Ada reads")
    ((total, is_greedy),) = score(EngineLM(engine), ("", "Ada reads"))
    assert is_greedy and total == pytest.approx(0, abs=1e-4)


def test_a_uniform_model_scores_every_token_alike(rigged, tiny_tokenizer):
    lm = EngineLM(rigged())
    ((total, _),) = score(lm, (CONTEXT, " walks along the river"))
    count = len(lm.tok_encode(" walks along the river", add_special_tokens=False))
    assert total == pytest.approx(-count * math.log(len(tiny_tokenizer)), rel=1e-6)


def test_a_model_that_knows_the_answer_is_sure_of_it_alone(rigged):
    lm = EngineLM(rigged(f"{CONTEXT} walks"))
    right, wrong = score(lm, (CONTEXT, " walks"), (CONTEXT, " sleeps"))
    assert right[1] and right[0] > -0.01
    assert not wrong[1] and wrong[0] < right[0] - 5


def test_a_choice_that_begins_another_is_as_likely_as_its_tokens_there(models):
    _, engines = models
    lm = EngineLM(engines["onnx"])
    short, long = score(lm, (CONTEXT, " reads"), (CONTEXT, " reads a book"))
    context = lm.tok_encode(CONTEXT)
    rest = lm.tok_encode(f"{CONTEXT} reads a book")
    number = len(lm.tok_encode(f"{CONTEXT} reads"))
    assert rest[:number] == lm.tok_encode(f"{CONTEXT} reads")
    (after,) = score_texts(engines["onnx"], [ScoredText(tuple(rest[:number]), tuple(rest[number:]))])
    assert long[0] == pytest.approx(short[0] + after.total, abs=1e-3)
    assert len(context) < number


def test_a_boundary_inside_a_token_scores_the_whole_continuation_and_nothing_twice(rigged):
    lm = EngineLM(rigged())
    word = next(w for w in ("morning", "the", "river", "and") if len(lm.tok_encode(w, add_special_tokens=False)) == 1)
    context, continuation = word[:-1], word[-1]
    begin, scored = lm._encode_pair(context, continuation)
    assert lm.engine.decode(begin, skip_special_tokens=True) == context
    assert lm.engine.decode(scored) == continuation
    assert lm.notes.num_split_words == 1


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(rigged):
    lm = EngineLM(rigged())
    assert lm._encode_pair(f"{CONTEXT} ", "reads") == lm._encode_pair(CONTEXT, " reads")


def test_a_context_that_is_too_long_is_cut_on_the_left_and_counted(rigged, tiny_tokenizer):
    engine = rigged()
    lm = EngineLM(engine, max_length=16)
    context = "river and town and " * 20
    score(lm, (context, " walks"), ("Ada", " walks"))
    assert lm.notes.num_requests == 2 and lm.notes.num_cut == 1
    begin, scored = lm._encode_pair(context.rstrip(), " walks")
    text = lm._fit(begin, scored)
    assert text.context[0] == tiny_tokenizer.bos_token_id
    assert (
        len(text.context) + len(text.continuation) == 17 and text.context[1:] == tuple(begin)[-len(text.context) + 1 :]
    )


def test_a_continuation_that_is_too_long_gets_no_score_and_is_counted(rigged):
    lm = EngineLM(rigged(), max_length=16)
    long, short = score(lm, ("Ada", " walks along" * 20), ("Ada", " walks"))
    assert long == NO_SCORE == (-math.inf, False) and math.isfinite(short[0])
    assert (lm.notes.num_requests, lm.notes.num_unscorable, lm.notes.num_cut) == (2, 1, 0)


def test_a_rolling_score_counts_every_token_once(models, tiny_tokenizer):
    model, engines = models
    text = "Ada lives in the old town. " * 6
    tokens = EngineLM(engines["torch"]).tok_encode(text, add_special_tokens=False)
    for length in (8, 32, 64):
        lm = EngineLM(engines["torch"], max_length=length)
        (total,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
        # Windows of `length` tokens that are computed; the last one begins so much earlier that it is full.
        windows = [ScoredText((tiny_tokenizer.bos_token_id,), tuple(tokens[:length]))]
        for start in range(length, len(tokens), length):
            end = min(start + length, len(tokens))
            windows.append(ScoredText(tuple(tokens[end - length - 1 : start]), tuple(tokens[start:end])))
        expected = sum(float(compute(model, window)[0].sum()) for window in windows)
        assert total == pytest.approx(expected, abs=1e-3)
    (uniform,) = EngineLM(_uniform(tiny_tokenizer), max_length=8).loglikelihood_rolling(
        ask("loglikelihood_rolling", (text,))
    )
    assert uniform == pytest.approx(-len(tokens) * math.log(len(tiny_tokenizer)), rel=1e-6)
    logprobs, _ = compute(model, ScoredText((tiny_tokenizer.bos_token_id,), tuple(tokens)))
    (whole,) = EngineLM(engines["torch"], max_length=256).loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    assert whole == pytest.approx(float(logprobs.sum()), abs=1e-3)


def _uniform(tokenizer):
    from tests.unit.evaluation.conftest import RiggedBackend

    from small_doge.inference import Engine

    return Engine(RiggedBackend(len(tokenizer), lambda _: None), tokenizer, [tokenizer.eos_token_id], "uniform")


@pytest.mark.parametrize("batch_size", [1, 2, 4, None])
def test_generation_stops_before_the_stop_text_in_any_batch(rigged, batch_size):
    texts = [f"Question {number}: answer {number}, and more" for number in range(6)]
    lm = EngineLM(rigged(*texts), batch_size=batch_size)
    asked = [
        (text.split(":")[0] + ":", {"until": [",", "\n"], "max_gen_toks": 20, "do_sample": False}) for text in texts
    ]
    assert lm.generate_until(ask("generate_until", *asked)) == [f" answer {number}" for number in range(6)]


def test_an_empty_generation_is_an_empty_text(rigged):
    lm = EngineLM(rigged(end_after=["Ada"]), batch_size=1)
    assert lm.generate_until(ask("generate_until", ("Ada", {"until": ["\n"], "max_gen_toks": 5}))) == [""]


def test_a_long_answer_takes_no_more_than_half_of_the_length_from_its_prompt(rigged):
    lm = EngineLM(rigged(), max_length=32, batch_size=1)
    short, long = (lm._prepare(text, {"max_gen_toks": 500}) for text in ("Ada", "Ada and " * 40))
    assert short.prompt_ids == lm.tok_encode("Ada") and short.options.max_new_tokens == 32 - len(short.prompt_ids)
    assert len(long.prompt_ids) == 16 == long.options.max_new_tokens and lm.notes.num_cut == 1


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0.0),
        ({"do_sample": False, "temperature": 1, "top_p": 0.5}, 0.0),
        ({"do_sample": False, "temperature": None}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.5}, 0.5),
        ({"temperature": 0.5}, 0.5),
        ({"temperature": 0.0}, 0.0),
    ],
)
def test_an_answer_is_drawn_only_if_that_is_asked(rigged, given, temperature):
    options = EngineLM(rigged(), batch_size=1)._prepare("Ada", given).options
    assert options.temperature == temperature and (options.top_p == 1.0 or temperature > 0)


def test_an_unknown_argument_of_generation_is_refused(rigged):
    lm = EngineLM(rigged(), batch_size=1)
    with pytest.raises(UserError, match="num_beams"):
        lm.generate_until(ask("generate_until", ("Ada", {"until": [], "num_beams": 3})))


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),
        ({1: 1.0, 2: 1.02, 4: 2.0}, 2),
        ({1: 1.0, 2: 1.0, 4: 9.0}, 2),
    ],
)
def test_the_batch_size_is_the_smallest_that_is_nearly_as_fast_as_any(tiny_engine, monkeypatch, seconds, best):
    clock = [0.0]

    def run(engine, requests, size):
        assert len(requests) == size
        clock[0] += seconds[size]
        return requests

    monkeypatch.setattr(generating, "run_together", run)
    monkeypatch.setattr(generating, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert choose_batch_size(tiny_engine) == best


def test_a_model_without_chat_template_says_so(tiny_engine, monkeypatch):
    monkeypatch.setattr(tiny_engine.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="no chat template"):
        EngineLM(tiny_engine).apply_chat_template([{"role": "user", "content": "Who?"}])


def test_tokens_of_another_tokenizer_are_refused(rigged):
    engine = rigged()
    with pytest.raises(UserError, match="another model's"):
        score_texts(engine, [ScoredText((0,), (engine.backend.vocab_size,))])


def test_an_engine_at_work_is_not_disturbed(tiny_engine):
    request = tiny_engine.submit([5, 6, 7], max_new_tokens=3)
    with pytest.raises(UserError, match="requests of its own"):
        score_texts(tiny_engine, [ScoredText((1,), (2,))])
    tiny_engine.cancel(request)


def test_importing_makes_no_connection():
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('a connection was made')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "import small_doge.evaluation.lm, lm_eval.evaluator\n"
        "print('quiet')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "quiet", found.stderr[-500:]
