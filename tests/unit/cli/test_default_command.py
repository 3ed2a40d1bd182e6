"""Groups of commands of which one runs when none is named."""

import pytest
import typer
from typer.testing import CliRunner

from small_doge.cli.default_command import DefaultCommandGroup


def call(*words):
    app = typer.Typer(cls=DefaultCommandGroup)

    @app.command("run")
    def run(model: str | None = typer.Argument(None), limit: int = 0):
        print("run", model, limit)

    @app.command("compare")
    def compare(first: str, second: str):
        print("compare", first, second)

    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ([], "run None 0"),
        (["folder"], "run folder 0"),
        (["folder", "--limit", "3"], "run folder 3"),
        (["--limit", "3", "folder"], "run folder 3"),
        (["run", "folder"], "run folder 0"),
        (["run", "compare"], "run compare 0"),
        (["compare", "a", "b"], "compare a b"),
    ],
)
def test_the_default_command_runs_unless_another_is_named(words, printed):
    done = call(*words)
    assert done.exit_code == 0 and done.output.strip() == printed


def test_help_lists_all_commands():
    shown = call("--help").output
    assert "run" in shown and "compare" in shown
    assert "--limit" in call("run", "--help").output


def test_a_misspelt_command_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("comprae", "a", "b")
    assert done.exit_code == 2 and "Did you mean 'compare'?" in done.output
    (tmp_path / "compar").mkdir()
    assert call("compar").output.strip() == "run compar 0"
