import gzip
import json

import pytest

from small_doge.processor.clean import FILTERS, Cleaning, clean
from small_doge.processor.scale import Cluster
from small_doge.processor.sources import open_source
from small_doge.utils.errors import UserError


pytest.importorskip("datatrove")
pytest.importorskip("spacy")

GOOD = [
    "The heron of the harbour was known to all who lived near the water. Every morning it went out with the wind and came "
    "back with news of the ships, and the people gave it bread for its trouble. Nobody could say how old it was.",
    "My grandmother kept bees behind the house. She said that they knew when a storm would come, because they stayed at "
    "home on such days, and she never hung out her washing without a look at the hives. I have done the same ever since.",
    "To bake a loaf of rye, you need flour, water, salt and a piece of the dough that you made last week. Mix them in the "
    "evening, cover the bowl with a cloth, and leave it to rise until the sun is up. Then heat the oven well.",
    "The bell of the tower rang twelve times, although it was only eleven. The watchmaker, who had been called to see to it, "
    "found that a crow had built its nest upon the hammer, and he did not have the heart to take it away.",
]
QUESTION = "Which of the following metals is the best conductor of heat and of electric current at room temperature?"


@pytest.fixture
def texts(tmp_path):
    rows = [
        *({"text": text, "id": i} for i, text in enumerate(GOOD)),
        {"text": "Too short.", "id": 10},
        {"text": "buy now and be happy with the deal of the day " * 30, "id": 11},
        {"text": GOOD[0], "id": 12},
        {"text": GOOD[1].replace("ever since", "since then"), "id": 13},
        {
            "text": f"On the way to the mill my uncle asked me what I had learnt at school. {QUESTION} I said that it was silver, and he "
            "laughed, because the kettle that he used to make our tea was made of copper and had served him well for years.",
            "id": 14,
        },
        {"text": None, "id": 15},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def evaluation(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text(json.dumps({"question": QUESTION, "choices": ["silver", "wood"], "answer": 0}) + "\n")
    return str(path)


def dropped(output):
    found = {}
    for path in (output / "dropped").rglob("*.jsonl.gz"):
        with gzip.open(path, "rt") as file:
            found |= {json.loads(line)["row"]["id"]: path.parent.name for line in file}
    return found


def test_each_text_is_dropped_by_the_filter_that_it_is_for(texts, evaluation, tmp_path):
    output = tmp_path / "clean"
    report = clean([texts], output, Cleaning(tuple(FILTERS), evaluation_sets=(evaluation,)), Cluster(workers=1))
    assert dropped(output) == {
        10: "length",
        11: "gopher_repetition",
        12: "exact_duplicates",
        13: "near_duplicates",
        14: "evaluation_overlap",
        15: "unusable",
    }
    source = open_source(str(output))
    kept = [r.row for file_range in source.ranges for r in source.read(file_range)]
    assert sorted(row["id"] for row in kept) == [0, 1, 2, 3]
    assert report.kept == 4 and report.rows == 10
    assert report.dropped["length"] == {"gopher_short_doc": 1} and report.dropped["exact_duplicates"] == {
        "exact_duplicates": 1
    }
    again = clean([texts], output, Cleaning(tuple(FILTERS), evaluation_sets=(evaluation,)), Cluster(workers=1))
    assert again == report


def test_a_folder_of_another_cleaning_is_not_overwritten(texts, tmp_path):
    output = tmp_path / "clean"
    clean([texts], output, Cleaning(("length",)), Cluster(workers=1))
    with pytest.raises(UserError, match="holds the result of other sources, files or settings"):
        clean([texts], output, Cleaning(("length",), min_words=20), Cluster(workers=1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        clean([texts], tmp_path / "full", Cleaning(("length",)), Cluster(workers=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": ("lenght",)}, "unknown filter 'lenght'; did you mean 'length'"),
        ({"filters": ()}, "filters is empty"),
        ({"filters": ("evaluation_overlap",)}, "give both or neither"),
        ({"min_words": 5, "max_words": 2}, "min_words=5 must be positive and at most max_words=2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Cleaning(**settings)
