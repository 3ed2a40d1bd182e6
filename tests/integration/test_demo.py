import json

from typer.testing import CliRunner

from small_doge.cli.main import app


FAST = [
    "--max_steps",
    "3",
    "--total_sample_size",
    "64",
    "--test_size",
    "8",
    "--eval_steps",
    "2",
    "--report_to",
    "none",
]
SMALL = ["--datasets_and_ratios", "[{embedded:world:300: 1.0}]"]


def demo(folder, *extra):
    done = CliRunner().invoke(app, ["demo", "--output", str(folder), *FAST, *SMALL, *extra])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_the_demo_trains_writes_and_goes_on_from_what_is_done(tmp_path, monkeypatch):
    import small_doge.cli.demo as module

    monkeypatch.setattr(module, "TOKENIZER_TEXTS", 1500)
    monkeypatch.setattr(module, "NUM_QUESTIONS", 3)
    first = demo(tmp_path)
    folder = tmp_path / "pretrain"
    assert all((folder / name).exists() for name in ("model.safetensors", "loss.png", "samples.md", "README.md"))
    assert "of 3 answered right" in first and "loss.png" in first
    stamp = json.loads((folder / "finished.json").read_text())["finished_at"]
    again = demo(tmp_path)
    assert again.count("done already") == 2
    assert json.loads((folder / "finished.json").read_text())["finished_at"] == stamp
    fresh = demo(tmp_path, "--fresh")
    assert "done already" not in fresh
    assert json.loads((folder / "finished.json").read_text())["finished_at"] > stamp
