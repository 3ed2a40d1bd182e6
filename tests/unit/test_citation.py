"""The citation file tells the version of the package and both papers."""

from pathlib import Path

import yaml

import small_doge


def test_citation_has_this_version_and_the_papers():
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    assert citation["version"] == small_doge.__version__
    assert [paper["identifiers"][0]["value"] for paper in citation["references"]] == [
        "arXiv:2412.11834",
        "arXiv:2508.02124",
    ]
    assert all(author.get("family-names") for paper in citation["references"] for author in paper["authors"])
