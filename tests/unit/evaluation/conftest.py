"""Models that score what a test decides, in the place of trained ones, and small data for every task."""

import gzip
import json

import numpy as np
import pytest
from tests.conftest import build_tiny

from small_doge.evaluation import progress
from small_doge.inference import Engine, TorchEngine


QUESTIONS = [("Who reads", "Ada"), ("Who sings", "Bo"), ("Who runs", "Cy"), ("Who sleeps", "Di")]
SURE = 20.0  # a logit that outweighs all others together


class RiggedBackend:
    """Computes nothing: `choose` names the next token after the tokens so far, or None for equal chances."""

    chunk_size, num_slots, keep_window_size, max_length, nbytes, weight_nbytes = 16, 4, 1 << 20, None, 0, 0
    tokens_per_call, shareable_length = 8, None

    def __init__(self, vocab_size, choose):
        self.vocab_size = vocab_size
        self.choose = choose
        self.slots = [() for _ in range(self.num_slots)]
        self.num_computed = 0

    def prefill(self, slot, ids, keep=None):
        assert 0 < len(ids) <= self.chunk_size
        start = len(self.slots[slot])
        self.slots[slot] += tuple(ids.tolist())
        self.num_computed += len(ids)
        places = [len(ids) - 1] if keep is None else keep
        rows = np.stack([self.row(self.slots[slot][: start + place + 1]) for place in places])
        return rows[0] if keep is None else rows

    def compute_texts(self, ids, keep):
        assert ids.shape[1] <= self.chunk_size
        self.num_computed += ids.size
        return np.stack([[self.row(tuple(row[: place + 1].tolist())) for place in keep] for row in ids])

    def row(self, tokens):
        row = np.zeros(self.vocab_size, dtype=np.float32)
        chosen = self.choose(tokens)
        if chosen is not None:
            row[chosen] = SURE
        return row

    def decode(self, count, ids):
        return np.stack([self.prefill(slot, ids[slot : slot + 1]) for slot in range(count)])

    def clear(self, slot):
        self.slots[slot] = ()

    def move(self, source, target):
        self.slots[target], self.slots[source] = self.slots[source], ()

    def save(self, slot):
        return np.array(self.slots[slot])

    def load(self, slot, state, length):
        self.slots[slot] = tuple(state[:length].tolist())

    def get_length(self, slot):
        return len(self.slots[slot])


def follow(texts, engine):
    """Choose, after any beginning of one of the texts, the token with which it goes on."""
    rows = [tuple(engine.encode(text)) for text in texts]

    def choose(tokens):
        return next(
            (row[len(tokens)] for row in rows if len(row) > len(tokens) and row[: len(tokens)] == tokens), None
        )

    return choose


@pytest.fixture
def rigged(tiny_tokenizer):
    """Make an engine that goes on with the given texts, and elsewhere finds all tokens alike."""

    def make(*texts, end_after=()):
        backend = RiggedBackend(len(tiny_tokenizer), lambda tokens: None)
        engine = Engine(backend, tiny_tokenizer, [tiny_tokenizer.eos_token_id], "rigged", trained_length=64)
        goes_on = follow(texts, engine)
        ends = {tuple(engine.encode(text)) for text in end_after}
        backend.choose = lambda tokens: tiny_tokenizer.eos_token_id if tokens in ends else goes_on(tokens)
        return engine

    return make


@pytest.fixture
def bars(monkeypatch):
    """What is counted on every bar that a suite shows."""
    made = []

    class Bar(progress.tqdm):
        def __init__(self, **how):
            super().__init__(**{**how, "disable": False, "mininterval": 1e9})
            self.steps, self.titles = [], []
            made.append(self)

        def update(self, n=1):
            self.steps.append(n)

        def set_description(self, desc=None, refresh=True):
            self.titles.append(desc)

    monkeypatch.setattr(progress, "tqdm", Bar)
    return made


@pytest.fixture
def tiny_engine(tiny_tokenizer):
    return TorchEngine(build_tiny(vocab_size=len(tiny_tokenizer)), tiny_tokenizer, num_slots=4)


def write_lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def data(tmp_path):
    """A data root with a file for every task, in the columns that are published."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = [name for _, name in QUESTIONS]
    rows = [{"id": f"q{i}", "question": q, "choices": names, "answer": i} for i, (q, _) in enumerate(QUESTIONS)]
    subject = [{**row, "subject": "high_school"} for row in rows]
    prefix = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in [*QUESTIONS, QUESTIONS[0]])
    prefixes = [
        {"task": n, "form": "rc", "prefix": prefix.replace("Question", "Goal") if n == "piqa" else prefix}
        for n in ("arc_easy", "arc_challenge", "piqa", "openbookqa", "winogrande", "hellaswag")
    ]
    thought = "".join(f"\n\nQ: {n} + 1 is\nA: Let's think.\nSo the answer is {n + 1}." for n in range(3))
    files = {
        **{f"{name}_val.jsonl.gz": rows for name in ("arc_easy", "arc_challenge", "openbookqa", "piqa")},
        "hellaswag_val.jsonl": [{**row, "context": row["question"]} for row in rows],
        "mmlu_test_1000.jsonl.gz": subject,
        "mmlu_dev.jsonl.gz": subject * 2,
        "fewshot_olmes.jsonl.gz": prefixes,
        "winogrande_val.jsonl.gz": [
            {"id": f"w{i}", "question": "_ reads more.", "choices": ["Ada", "Bo"], "answer": i} for i in (0, 1)
        ],
        "triviaqa_500.jsonl.gz": [
            {"id": f"t{i}", "question": q, "answer": a, "aliases": [f"The {a}"]} for i, (q, a) in enumerate(QUESTIONS)
        ],
        "bbh_3.jsonl.gz": [{"id": "b0", "task": "object_counting", "input": "1 + 1 is", "target": "2"}],
        "bbh_3_cot_prompts.jsonl.gz": [{"task": "object_counting", "cot_prompt": f"Add.{thought}"}],
        "ifeval.jsonl.gz": [
            {
                "key": 1,
                "prompt": "Write without commas, in English.",
                "instruction_id_list": ["punctuation:no_comma", "language:response_language"],
                "kwargs": [{}, {"language": "en"}],
            },
            {
                "key": 2,
                "prompt": "Write at least two sentences.",
                "instruction_id_list": ["length_constraints:number_sentences"],
                "kwargs": [{"relation": "at least", "num_sentences": 2}],
            },
        ],
        "gsm8k_test.jsonl.gz": [{"id": "g0", "question": "1 + 1?", "final": "2"}],
        "svamp_test.jsonl.gz": [
            {"ID": "chal-1", "Type": "Add", "Body": "Ada has 2 pens.", "Question": "Two more?", "Answer": 4.0}
        ],
        "math_test.jsonl.gz": [
            {"problem": "Half?", "level": "Level 1", "type": "Algebra", "solution": r"So $\boxed{\frac{1}{2}}$."},
            {"problem": "Who?", "level": "Level 1", "type": "Algebra", "solution": r"It is \boxed{\text{Evelyn}}."},
        ],
    }
    for name, content in files.items():
        write_lines(folder / name, content)
    return folder
