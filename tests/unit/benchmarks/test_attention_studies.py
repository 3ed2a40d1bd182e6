"""The studies of attention: their tasks are what they claim, and each runs end to end at its smallest size."""

import json

import numpy as np
import pytest
from benchmarks.studies import attention_lm, mqar, needle, token_rows
from hypothesis import given, settings
from hypothesis import strategies as st


TASKS = st.builds(
    lambda pairs, window, rest, noise: mqar.Task(2 * pairs + rest, window, pairs, 32, noise),
    st.integers(1, 12),
    st.integers(1, 16),
    st.integers(4, 60),
    st.sampled_from(["own", "alike"]),
)


@given(TASKS, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_query_was_given_before_and_its_answer_is_the_value_given(task, seed):
    rows = mqar.make_rows(np.random.default_rng(seed), 4, task)
    start = 2 * task.pairs
    for ids, answers, distance in zip(rows["input_ids"], rows["shift_labels"], rows["distance"], strict=True):
        given = dict(zip(ids[0:start:2], ids[1:start:2], strict=True))
        assert len(given) == task.pairs, "a key was given twice"
        asked = np.flatnonzero(answers != mqar.IGNORED)
        assert len(asked) and asked.min() >= start
        assert all(answers[at] == given[ids[at]] for at in asked)
        assert all(ids[at - distance[at]] == answers[at] for at in asked)
        assert not set(ids[start:]) & set(given) - set(ids[asked]), "noise that is a given key would be a query"
        # A key in the noise is a query too, so that it has an answer.
        assert all(answers[at] != mqar.IGNORED for at in range(start, task.length) if ids[at] in given)


def test_noise_is_of_its_own_or_like_the_pairs():
    rng = np.random.default_rng(0)
    for noise, is_noise in (
        ("own", lambda ids: ids >= 2 * mqar.SYMBOLS),
        ("alike", lambda ids: ids < 2 * mqar.SYMBOLS),
    ):
        rows = mqar.make_rows(rng, 8, mqar.Task(64, 16, 4, 32, noise))
        rest = (rows["shift_labels"] == mqar.IGNORED) & (np.arange(64) >= 8)
        assert is_noise(rows["input_ids"][rest]).all()


class Oracle:
    """Finds the value that follows the first earlier occurrence of each key, by looking back at most `reach` tokens."""

    def __init__(self, reach):
        self.reach = reach

    def __call__(self, ids):
        logits = np.zeros((*ids.shape, 3 * mqar.SYMBOLS))
        for row, tokens in enumerate(ids.tolist()):
            for at, key in enumerate(tokens):
                first = tokens.index(key)
                if first + 1 < at and at - first - 1 < self.reach:
                    logits[row, at, tokens[first + 1]] = 1
        return type("Output", (), {"logits": mqar.torch.as_tensor(logits)})


def test_accuracy_is_told_within_the_window_and_past_it():
    task = mqar.Task(64, 16, 4, 32)
    rows = mqar.make_rows(np.random.default_rng(0), 32, task)
    assert mqar.measure(Oracle(64), rows, task.window, "cpu") == {"all": 1.0, "near": 1.0, "far": 1.0}
    seen = mqar.measure(Oracle(16), rows, task.window, "cpu")
    assert seen["near"] == 1.0 and seen["far"] == 0.0 and 0 < seen["all"] < 1


@pytest.mark.parametrize("decoys", [0.0, 0.25])
def test_the_needle_is_the_only_marked_symbol_and_stands_where_asked(decoys):
    for distance in (None, 1, 10, 38):
        rows = needle.make_rows(np.random.default_rng(0), 16, 40, decoys, distance, questions=4)
        ids, answers = rows["input_ids"], rows["shift_labels"]
        assert (ids[:, -1] == needle.QUESTION).all() and ((ids == needle.MARK).sum(axis=1) == 1).all()
        row, mark = np.nonzero(ids == needle.MARK)
        symbol = ids[row, mark + 1]
        assert ((symbol >= needle.HAY) & (symbol < needle.HAY + needle.SYMBOLS)).all()
        assert (answers[:, -1] == symbol).all()
        asked = answers != needle.IGNORED
        assert (ids[asked] == needle.QUESTION).all() and (asked == (ids == needle.QUESTION)).all()
        assert (asked.argmax(axis=1) > mark).all(), "asked before it was given"
        if distance is not None:
            assert (39 - (mark + 1) == distance).all()


def test_the_hay_holds_unmarked_symbols_only_as_decoys():
    for decoys, least in ((0.0, 0), (0.25, 100)):
        ids = needle.make_rows(np.random.default_rng(0), 16, 40, decoys)["input_ids"]
        num_symbols = ((ids >= needle.HAY) & (ids < needle.HAY + needle.SYMBOLS)).sum() - 16
        assert num_symbols == 0 if least == 0 else num_symbols > least


@pytest.mark.parametrize("study", [mqar, needle, attention_lm])
def test_a_study_runs_end_to_end_and_again_from_what_it_kept(study, tmp_path, monkeypatch, tiny_tokenizer, capsys):
    monkeypatch.setattr(token_rows, "KEPT", tmp_path / "tokens")
    output, kept = tmp_path / "result.md", tmp_path / "runs.jsonl"
    command = ["--scale", "smoke", "--seeds", "0", "1", "--output", str(output), "--resume", str(kept)]
    if study is attention_lm:
        tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
        command += ["--data", "embedded:world:60", "--tokenizer", str(tmp_path / "tokenizer")]
    study.main(command)
    text = output.read_text(encoding="utf-8")
    assert "±" in text and "commit" in text and "nan" not in text
    for picture in (line for line in text.splitlines() if line.startswith("![")):
        assert (tmp_path / picture.partition("](")[2].rstrip(")")).exists()
    num_runs = len(kept.read_text().splitlines())
    rows = json.loads(capsys.readouterr().out.splitlines()[-2])["rows"]
    assert {row["attention"] for row in rows} >= {"dma", "full", "window"} and {row["seed"] for row in rows} == {0, 1}
    study.main(command)
    assert output.read_text(encoding="utf-8") == text and len(kept.read_text().splitlines()) == num_runs
