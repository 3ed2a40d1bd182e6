"""Sampling options of the commands are the fields of `SamplingOptions`: one help, one set of limits."""

from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

from small_doge.cli import options
from small_doge.cli.main import app
from small_doge.inference import SamplingOptions


FIELDS = {field.name: field for field in fields(SamplingOptions)}
OFFERED = {
    "chat": ["max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"],
    "generate": ["max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop"],
}


@pytest.mark.parametrize("command", OFFERED)
def test_help_is_that_of_the_fields(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    shown = CliRunner().invoke(app, [command, "--help"]).output
    for name in OFFERED[command]:
        assert f"--{name.replace('_', '-')} " in shown
        assert FIELDS[name].metadata["help"] in shown
    assert ("A new one is drawn for every answer if not set." in shown) == (
        command == "chat"
    )  # the other has a default


def run_with(*words):
    """What a command gets as its sampling options."""
    found, small = [], typer.Typer()

    @small.command()
    @options.with_sampling_options("temperature", "stop", "json_schema", "seed", temperature=0.5)
    def command(*, sampling: SamplingOptions, threads: options.Threads = None) -> None:
        found.append((sampling, threads))

    done = CliRunner().invoke(small, words)
    return (*found, done)[0]


def test_a_command_gets_checked_options_with_its_own_defaults():
    assert run_with() == (SamplingOptions(temperature=0.5), None)
    sampling, threads = run_with("--stop", "a", "--stop", "b", "--json-schema", "{}", "--seed", "3", "--threads", "2")
    assert (sampling.stop, sampling.json_schema, sampling.seed, threads) == (("a", "b"), "{}", 3, 2)
    assert run_with("--temperature", "-1").exit_code == 2
