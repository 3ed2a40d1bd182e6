"""lighteval, in its own environment, asks what the harness asks, and gives each item the same score.

Needs `make lighteval`.
"""

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from datasets import load_dataset
from tests.conftest import build_tiny
from tests.unit.evaluation.conftest import data as tiny_data
from tests.unit.evaluation.conftest import write_lines

from small_doge.evaluation.lm import EngineLM
from small_doge.evaluation.prompts import write_prompts
from small_doge.evaluation.running import plan_suite, run_plan
from small_doge.inference import TorchEngine


ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-lighteval" / "bin" / "python"
SHARED = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not PYTHON.is_file(), reason="needs make lighteval")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
data = tiny_data


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where lighteval's libraries keep their files."""
    return tmp_path_factory.mktemp("home")


def make_environment(home, **settings):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings}


def list_asked(folder, home):
    """What lighteval asks by the prompts of a folder, by task and item."""
    done = subprocess.run(
        [str(PYTHON), str(ROOT / "tests" / "lighteval_side.py")],
        capture_output=True,
        text=True,
        env=make_environment(home, PROMPTS_DIR=str(folder)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    asked = defaultdict(dict)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        assert row["id"] not in asked[row["task"]]
        asked[row["task"]][row["id"]] = row
    return asked


def assert_choices_are_asked_alike(line, asked, chat):
    """The texts that lighteval scores, less those that it takes off, are the harness's continuations."""
    pairs = zip(line["contexts"] * (len(line["choices"]) // len(line["contexts"])), line["continuations"], strict=True)
    count, given = len(line["choices"]), asked["choices"][len(line["choices"]) :]
    assert asked["answer"] == line["answer"] and asked["given"] == len(given) in ((1,) if chat else (0, count))
    assert asked["lengths"] == [len(choice) for choice in line["choices"]]
    for number, (context, continuation) in enumerate(pairs):
        before = given[number] if len(given) == count else ""
        assert given in ([], [""]) or len(given) == count
        assert asked["prompt"] + before == context
        assert asked["choices"][number] == before + continuation
    # What is taken off begins with a word, so that it has the same tokens by itself.
    assert not any(given) or asked["prompt"][-1:] in ("", " ", "\n")


def assert_questions_are_asked_alike(line, asked, described):
    assert asked["prompt"] == line["context"]
    assert asked["until"] == described["until"] and asked["max_new_tokens"] == described["max_new_tokens"]


@needs_shared
@pytest.mark.parametrize("suite", ["base", "instruct"])
def test_lighteval_asks_every_item_as_the_harness_does(suite, tmp_path, home):
    content = write_prompts(plan_suite(suite, SHARED), tmp_path)
    asked = list_asked(tmp_path, home)
    assert set(asked) == {described["name"] for described in content["tasks"].values()}
    for name, described in content["tasks"].items():
        found = asked[described["name"]]
        lines = [json.loads(line) for line in (tmp_path / name / "test.jsonl").read_text("utf-8").split("\n") if line]
        assert len(lines) == len(found) == described["items"] > 100
        for line in lines:
            told = found[line["id"]]
            assert told["metrics"] == sorted(described["metrics"])
            if "scorer" in described:
                assert_questions_are_asked_alike(line, told, described)
            else:
                assert_choices_are_asked_alike(line, told, described["chat"])


@pytest.fixture
def model(tmp_path, tiny_tokenizer):
    """A model that takes the longest prompt, with no key left out, so that plain transformers computes the same."""
    model = build_tiny(vocab_size=len(tiny_tokenizer), max_position_embeddings=2048, keep_window_size=2048)
    folder = tmp_path / "models" / "tiny"
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def read_details(folder):
    """Each item's scores and answers, by task and item, of the one run in a folder."""
    found = defaultdict(dict)
    for path in folder.glob("details/*/*/details_*.parquet"):
        for row in load_dataset("parquet", data_files=str(path), split="train"):
            found[row["doc"]["task_name"].split("|")[0]][row["doc"]["specific"]["id"]] = row
    return found


@pytest.mark.parametrize("suite", ["base", "instruct"])
def test_lighteval_gives_every_item_the_same_score(suite, model, data, tmp_path, home):
    trivia = [{"id": f"t{i}", "question": f"Who is {i}", "answer": f"No. {i}", "aliases": [str(i)]} for i in range(8)]
    write_lines(data / "triviaqa_500.jsonl.gz", trivia)
    settings = {"MODEL": str(model), "OUTPUT_DIR": str(tmp_path / "out"), "DATA_ROOT": str(data), "SUITE": suite}
    before = sorted(model.iterdir())
    done = subprocess.run(
        ["bash", str(ROOT / "evaluation" / "eval_downstream_tasks.sh")],
        env={**os.environ, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "SAVE_DETAILS": "1", **settings},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(model.iterdir()) == before, "lighteval left its cache in the model's folder"
    details = read_details(tmp_path / "out")

    plan = plan_suite(suite, data)
    lm = EngineLM(TorchEngine(str(model)))
    ours = run_plan(lm, plan, {}, tmp_path / "ours", lambda _: None)
    described = json.loads((tmp_path / "out" / f"prompts-{suite}" / "prompts.json").read_text())["tasks"]
    for (name, _), result in ours.items():
        theirs = details[described[name]["name"]]
        assert len(theirs) == len(result["items"]) > 0
        for item in result["items"]:
            row = theirs[item["id"]]
            assert float(row["metric"][result["metric"]]) == item["score"], (name, item["id"])
            if "loglikelihoods" in item:
                logprobs, given = row["model_response"]["logprobs"], row["doc"]["specific"]["given"]
                count = len(item["loglikelihoods"])
                taken_off = logprobs[-given:] * (count // given) if given else [0.0] * count
                found = [total - extra for total, extra in zip(logprobs[:count], taken_off, strict=True)]
                assert found == pytest.approx(item["loglikelihoods"], abs=1e-3)
            else:
                assert row["model_response"]["text"][0].strip() == item["answer"].strip(), (name, item["id"])
