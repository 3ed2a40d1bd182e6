"""IFEval's checkers: the harness's own, without a network, the same on every run."""

import subprocess
import sys
from pathlib import Path

import pytest

from small_doge.evaluation.ifeval import check_instructions
from small_doge.evaluation.task_files import load_task
from small_doge.utils.errors import UserError


SHARED = Path(__file__).parents[4] / "shared" / "data"


def check(answer, *instructions, prompt="Write."):
    doc = {
        "key": 1,
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [kwargs for _, kwargs in instructions],
    }
    return check_instructions(doc, answer)


def test_scores_are_by_prompt_and_by_instruction_strict_and_loose():
    no_comma, lower = ("punctuation:no_comma", {}), ("change_case:english_lowercase", {})
    found = check("this is a plain answer, and a long one.", no_comma, lower)
    assert found["prompt_level_strict_acc"] == 0 and found["inst_level_strict_acc"] == [0, 1]
    found = check("Sure, here it is:\nthis is a plain answer and a long one.", no_comma, lower)
    assert found["inst_level_strict_acc"] == [0, 0] and found["inst_level_loose_acc"] == [1, 1]
    assert found["prompt_level_loose_acc"] == 1
    assert check("", no_comma)["prompt_level_strict_acc"] == 0


def test_sentences_are_split_as_punkt_splits_them():
    for relation, right in (("at least", 0), ("less than", 1)):
        rule = ("length_constraints:number_sentences", {"relation": relation, "num_sentences": 3})
        answer = "Mr. Smith came at 5 p.m. to see Dr. Jones of the U.S. embassy. It rained."
        assert check(answer, rule)["prompt_level_strict_acc"] == right


def test_the_language_of_a_short_answer_is_the_same_each_time():
    rule = ("language:response_language", {"language": "en"})
    assert len({check("no idea", rule)["prompt_level_strict_acc"] for _ in range(20)}) == 1


def test_an_instruction_that_there_is_not_is_named():
    with pytest.raises(UserError, match="row 1: there is no instruction 'punctuation:none'"):
        check("a", ("punctuation:none", {}))


def test_a_row_needs_no_key():
    row = {"id": "a", "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert check_instructions(row, "Ada reads")["prompt_level_strict_acc"] == 1
    with pytest.raises(UserError, match="row a: there is no instruction"):
        check_instructions({**row, "instruction_id_list": ["none"]}, "Ada")


def test_the_checkers_are_loaded_without_a_connection():
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('a connection was made')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from small_doge.evaluation.ifeval import load_checkers\n"
        "load_checkers()\n"
        "from lm_eval.tasks.ifeval.instructions_util import count_sentences\n"
        "print(count_sentences('Dr. A came. B left.'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "2", found.stderr[-500:]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_every_published_prompt_can_be_judged():
    for row in load_task("ifeval", SHARED).rows[::20]:
        assert len(check_instructions(row, "I do not know.")["inst_level_loose_acc"]) == len(row["kwargs"])


def test_the_package_and_nltk_split_sentences_alike():
    punkt, tokenizers = pytest.importorskip("punkt"), pytest.importorskip("nltk.tokenize.punkt")
    try:
        theirs = tokenizers.PunktTokenizer("english")
    except LookupError:
        pytest.skip("NLTK has no punkt_tab here")
    text = "Mr. A. Smith of the U.S. came at 5 p.m. It rained, e.g. on No. 5. Was it J. Aron? Yes!"
    assert punkt.PunktSentenceTokenizer(punkt.load_model("english")).tokenize(text) == theirs.tokenize(text)
