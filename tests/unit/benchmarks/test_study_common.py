"""What the studies share: kept runs, training, token rows, tables."""

import argparse
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from benchmarks.studies import presenting, token_rows
from benchmarks.studies.attention import build_model
from benchmarks.studies.common import Study, build_parser, train
from benchmarks.studies.presenting import spread, summary_table
from matplotlib.figure import Figure

from small_doge.utils.errors import UserError


SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def build_study(tmp_path, **overrides) -> Study:
    args = build_parser("toy", "A toy.").parse_args(["--scale", "smoke", "--seeds", "0", "1"])
    args.output, args.resume = tmp_path / "toy.md", tmp_path / "toy.jsonl"
    return Study("toy", argparse.Namespace(**{**vars(args), **overrides}), ["--scale", "smoke"])


def test_a_killed_study_goes_on_with_the_run_that_was_killed(tmp_path):
    settings = [{"size": size, "seed": seed} for size in (1, 2) for seed in (0, 1)]
    made = []

    def run(setting):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(setting)
        return {"score": setting["size"] + setting["seed"]}

    with pytest.raises(KeyboardInterrupt):
        build_study(tmp_path).run_all(settings, run)
    with open(tmp_path / "toy.jsonl", "a", encoding="utf-8") as file:
        file.write('{"setting": {"size": 2, "se')  # torn by the kill
    made.clear()
    rows = build_study(tmp_path).run_all(settings, lambda s: made.append(s) or {"score": s["size"] + s["seed"]})
    assert made == settings[2:]
    assert [row["score"] for row in rows] == [1, 2, 2, 3]
    kept = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    assert [line["setting"] for line in kept] == settings


def test_a_result_file_tells_command_commit_machine_and_time(tmp_path, capsys):
    study = build_study(tmp_path)
    rows = study.run_all([{"seed": seed} for seed in (0, 1)], lambda s: {"score": float(s["seed"])})
    lines = {"a line": {1: [0.0, 1.0], 2: [1.0, 2.0]}}
    study.write("A toy", [summary_table(rows, [], {"score": 2}), study.show_picture({"panel": lines}, "x", "y")], rows)
    text = (tmp_path / "toy.md").read_text(encoding="utf-8")
    assert text.startswith("# A toy\n\n`python -m benchmarks.studies.toy --scale smoke`, commit ")
    assert "cores" in text and "minutes in all" in text and "0.50 ± 0.71" in text
    assert "![y by x](toy.png)" in text and (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out.splitlines()[-2])["benchmark"] == "study-toy"


def test_tables_show_mean_and_standard_deviation_of_the_seeds():
    assert spread([0.5]) == "0.500" and spread([]) == "" and spread([0.0, 1.0], 2) == "0.50 ± 0.71"
    rows = [{"kind": "a", "seed": 0, "score": 1.0}, {"kind": "a", "seed": 1, "score": 3.0}, {"kind": "b", "seed": 0}]
    assert summary_table(rows, ["kind"], {"score": 1}).splitlines()[2:] == ["| a | 2.0 ± 1.4 |", "| b |  |"]


def batches(count):
    ids = torch.arange(8)[None]
    return ({"input_ids": ids, "labels": ids} for _ in range(count))


def test_training_returns_the_curve_and_stops_when_told():
    model = build_model("full", 8, 8, **SIZES)
    points = train(
        model, batches(40), 40, 1e-2, every=10, evaluate=lambda: {"score": 1.0}, stop=lambda p: p["loss"] < 0
    )
    assert [point["step"] for point in points] == [10, 20, 30, 40] and points[-1]["tokens"] == 320
    assert points[-1]["loss"] < points[0]["loss"] and points[-1]["score"] == 1.0
    assert len(train(model, batches(40), 40, 1e-2, every=10, stop=lambda point: True)) == 1
    with pytest.raises(UserError, match="the batches end before step 9"):
        train(model, batches(3), 9, 1e-2)


def test_the_schedule_reaches_the_optimizer():
    model = build_model("full", 8, 8, **SIZES)
    before = model.lm_head.weight.detach().clone()
    train(model, batches(2), 2, 1e-2, schedule=lambda step: 0.0)
    assert torch.equal(model.lm_head.weight, before)


@pytest.mark.parametrize("attention", ["full", "window"])
def test_attentions_without_scores_are_plain_causal_attention_and_a_sliding_window(attention):
    """The last token sees the first one or not, by one layer, and the softmax has no bias: weights of zeros are even."""
    model = build_model(attention, 8, 3, **SIZES).eval()
    layer = model.model.layers[0].self_attn
    torch.nn.init.zeros_(layer.q_proj.weight)  # every product is 0, so each kept key has the same weight
    torch.nn.init.normal_(layer.dt_proj.weight)
    torch.nn.init.normal_(layer.A)
    hidden = torch.randn(1, 8, 16)
    with torch.no_grad():
        position = model.model.rotary_emb(hidden, torch.arange(8)[None])
        output = layer(hidden, position_embeddings=position)[0]
        values = layer.v_proj(hidden)
        width = 8 if attention == "full" else 3
        means = torch.stack([values[0, max(0, i + 1 - width) : i + 1].mean(dim=0) for i in range(8)])
        torch.testing.assert_close(output[0], layer.o_proj(means))


def test_a_biased_model_keeps_every_key_and_learns_its_scores():
    model = build_model("biased", 8, 3, **SIZES)
    layer = model.model.layers[0].self_attn
    assert layer.keep_window_size == 8 and layer.A.requires_grad
    assert not build_model("full", 8, 3, **SIZES).model.layers[0].self_attn.A.requires_grad


def test_unknown_attentions_name_the_near_miss():
    with pytest.raises(UserError, match="did you mean 'window'"):
        build_model("windows", 8, 4, **SIZES)


@pytest.fixture
def tokenizer_folder(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_rows_of_tokens_are_cut_from_different_documents_and_kept(
    tmp_path, monkeypatch, tokenizer_folder, tiny_tokenizer
):
    monkeypatch.setattr(token_rows, "KEPT", tmp_path / "kept")
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": letter * 30}) + "\n" for letter in "abcdef"), encoding="utf-8")
    train_rows, held_out = token_rows.read_tokens([texts], tokenizer_folder, 10, 4, 2)
    assert train_rows.shape == (4, 10) and held_out.shape == (2, 10)
    special = set(tiny_tokenizer.all_special_ids)
    assert not (set(np.unique(train_rows)) & set(np.unique(held_out))) - special
    monkeypatch.setattr(token_rows, "read_texts", lambda names: pytest.fail("read again"))
    again, _ = token_rows.read_tokens([texts], tokenizer_folder, 10, 4, 2)
    assert np.array_equal(again, train_rows)


def test_too_little_text_says_how_much_there_is(tmp_path, monkeypatch, tokenizer_folder):
    monkeypatch.setattr(token_rows, "KEPT", tmp_path / "kept")
    (tmp_path / "texts.txt").write_text("short", encoding="utf-8")
    with pytest.raises(UserError, match=r"--data has 0 rows of 50 tokens where 1 are wanted"):
        token_rows.read_tokens([tmp_path / "texts.txt"], tokenizer_folder, 50, 4, 1)


def test_every_panel_names_lines_that_the_one_before_does_not(tmp_path, monkeypatch):
    figure = Figure()
    monkeypatch.setattr(presenting, "saved_figure", lambda *args: nullcontext(figure))
    line = {1: [0.0], 2: [1.0]}
    panels = {"one": {"a": line}, "two": {"b": line, "c": line}, "three": {"b": line, "c": line}}
    presenting.draw_lines(tmp_path / "lines.png", panels, "x", "y")
    legends = [axis.get_legend() for axis in figure.axes]
    assert [legend and [text.get_text() for text in legend.get_texts()] for legend in legends] == [
        ["a"],
        ["b", "c"],
        None,
    ]
