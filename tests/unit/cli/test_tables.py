"""Tables in narrow terminals: nothing is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from small_doge.cli import demo
from small_doge.cli import main as module
from small_doge.cli.tables import show_table
from small_doge.evaluation.journey import Result


def render(width, *table, **settings):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_table(console, *table, **settings)
    return console.export_text()


word = st.text("abcdefghij", min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 120), st.lists(st.lists(word, min_size=4, max_size=4), min_size=1, max_size=6))
def test_every_cell_is_there_whole_at_any_width(width, rows):
    shown = render(width, ("One", "Two", "Three", "Four"), rows, title="A title")
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
    assert all(cell in shown for row in rows for cell in row)


def test_a_wide_table_is_turned_and_a_wider_one_written_as_a_list():
    columns = ["Stage", *(f"score number {i}" for i in range(9))]
    rows = [[f"stage-{i}", *(str(10 * i + j) for j in range(9))] for i in range(5)]
    assert "┃" in render(200, columns, rows) and "stage-4" in render(200, columns, rows).splitlines()[-2]
    turned = render(70, columns, rows).splitlines()
    assert "stage-0" in turned[1] and "stage-4" in turned[1]
    assert "  score number 8: 48" in render(30, columns, rows)


def test_prose_goes_on_in_further_lines():
    shown = render(40, ("Name", "Meaning"), [("one", "a long text " * 10)], prose=("Meaning",))
    assert "┃" in shown and shown.count("long") == 10


def test_the_table_of_the_demo_fits_into_eighty_columns():
    names = ("questions", "problems", "drawn problems", "direct answers", "preferences")
    results = [
        Result(name, dict.fromkeys(names, 0.5), {}, {"seconds": 1234})
        for name in ("pretrain", "sft", "dpo", "distill", "grpo")
    ]
    shown = render(80, *demo._make_table(results))
    assert "…" not in shown and "questions" in shown and "preferences" in shown and shown.count("1234") == 5


@pytest.mark.parametrize("words", ["env", "data list", "train settings pt", "train settings grpo --all", "--help"])
@pytest.mark.parametrize("width", ["80", "60"])
def test_no_command_cuts_its_tables(monkeypatch, words, width):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("small_doge.cli.data.console", Console(width=int(width)))
    shown = CliRunner().invoke(module.app, words.split(), terminal_width=int(width)).output
    assert shown and "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(width)
