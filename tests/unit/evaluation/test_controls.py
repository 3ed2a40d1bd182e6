"""The harness's own model class on the same checkpoint: the same prompts, log-likelihoods and answers as our engines."""

import json
import shutil

import pytest
from tests.conftest import build_tiny
from tests.unit.evaluation.conftest import write_lines

from small_doge.evaluation.comparison import compare_models, read_scores
from small_doge.evaluation.controls import open_with_hf
from small_doge.evaluation.lm import EngineLM
from small_doge.evaluation.results import run_suite
from small_doge.evaluation.running import plan_suite, run_plan
from small_doge.evaluation.score_tables import list_cells, list_warnings, write_html, write_markdown
from small_doge.evaluation.suites import name_folder
from small_doge.inference import TorchEngine
from small_doge.processor.tokenizer import build_generation_config
from small_doge.utils.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    model = build_tiny(vocab_size=len(tiny_tokenizer), max_position_embeddings=256, keep_window_size=64)
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def run(checkpoint, data, folder, suite="base", names=None, shots=None, **how):
    plan = plan_suite(suite, data, names, shots=shots)
    engine = TorchEngine(checkpoint, num_slots=4)
    return run_suite(engine, checkpoint, plan, folder, batch_size=2, **how)


def test_plain_transformers_give_the_same_item_by_item(checkpoint, data, tmp_path):
    names = ["arc", "piqa", "winogrande", "openbookqa", "mmlu", "hellaswag", "triviaqa"]
    result = run(checkpoint, data, tmp_path / "out", names=names, shots=[0, 1], check=True)
    assert len(result["check"]) == 16
    for part in result["check"]:
        if part["num_split_words"] or part["num_cut"]:
            continue
        assert part["num_same_scores"] == part["num_same_prompts"] == part["n"], part
        if part["largest_difference"] is None:
            assert part["num_same_answers"] == part["n"]
        else:
            assert part["largest_difference"] < 1e-4
    assert sum(part["num_split_words"] == 0 for part in result["check"]) >= 12
    assert any("Check with plain transformers, piqa, 0-shot: 4 of 4 items" in line for line in list_warnings(result))


def test_a_second_run_and_other_batches_give_the_same_scores(checkpoint, data, tmp_path):
    engine = TorchEngine(checkpoint, num_slots=4)
    plan = plan_suite("base", data, ["piqa", "hellaswag", "triviaqa"], shots=[0])
    runs = [
        run_plan(EngineLM(engine, batch_size=size), plan, {}, tmp_path / f"{number}", lambda _: None)
        for number, size in enumerate((1, 1, 3))
    ]
    for place, task in runs[0].items():
        again, batched = runs[1][place], runs[2][place]
        assert again["items"] == task["items"] and again["prompt_hash"] == batched["prompt_hash"]
        for one, other in zip(task["items"], batched["items"], strict=True):
            assert other.pop("loglikelihoods", []) == pytest.approx(one.pop("loglikelihoods", []), abs=1e-4)
            assert other == one


def test_conversations_are_the_same_through_plain_transformers(checkpoint, data, tmp_path, bars, capsys):
    result = run(checkpoint, data, tmp_path / "out", "instruct", ["piqa", "bbh"], shots=[0], check=True)
    for bar in bars:  # one by our engine, one by the harness's class, which shows no other
        assert bar.titles == ["piqa, 0-shot (1 of 2)", "bbh, 0-shot (2 of 2)"]
        assert len(bar.steps) == 16 + 1 and sum(bar.steps) == pytest.approx(bar.total)
    assert len(bars) == 2 and "Running" not in capsys.readouterr().err
    choices, answers = result["check"]
    assert answers["num_same_answers"] == answers["num_same_prompts"] == answers["n"]
    # The harness scores white space at the end of the template as part of the answer; the prompts are the same.
    assert choices["num_same_prompts"] == choices["n"]
    assert "white space at the end of the template" in "".join(list_warnings(result))


def test_answers_that_may_be_longer_than_the_model_are_the_same_through_plain_transformers(checkpoint, data, tmp_path):
    """IFEval allows 1,280 tokens, and the model takes 256."""
    result = run(checkpoint, data, tmp_path / "out", "instruct", ["ifeval"], check=True)
    (answers,) = result["check"]
    assert answers["num_same_answers"] == answers["num_same_prompts"] == answers["n"] > 0


def test_controls_stand_in_the_same_table_and_are_kept(checkpoint, data, tmp_path):
    result = run(checkpoint, data, tmp_path / "out", names=["piqa"], shots=[0], controls=[checkpoint])
    (control,) = result["controls"]
    assert [row["score"] for row in control["rows"]] == [row["score"] for row in result["rows"]]
    head, rows = list_cells(result)
    name = checkpoint.rsplit("/", 1)[-1]
    assert rows[0][head.index(f"{name}+")].startswith(f"{100 * control['rows'][0]['score']:.1f}")
    assert f"{name}+" in write_html(result) and "plain transformers" in write_markdown(result)
    (path,) = (tmp_path / "out" / "controls").rglob("base-piqa-0shot.json")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "seconds": -1}))
    again = run(checkpoint, data, tmp_path / "out", names=["piqa"], shots=[0], controls=[checkpoint])
    assert again["controls"] == result["controls"] and json.loads(path.read_text())["seconds"] == -1


def test_texts_that_are_cut_for_a_control_are_counted_and_told(checkpoint, data, tmp_path):
    long = [{"question": f"Who {'reads ' * 300}?", "choices": ["Ada", "Bo"], "answer": 0}]
    write_lines(data / "piqa_val.jsonl.gz", long)
    write_lines(data / "triviaqa_500.jsonl.gz", [{**long[0], "answer": "Ada", "aliases": []}])
    result = run(checkpoint, data, tmp_path / "out", names=["piqa", "triviaqa"], shots=[0], controls=[checkpoint])
    for own, control in zip(result["rows"], result["controls"][0]["rows"], strict=True):
        for name in ("num_requests", "num_cut", "num_cut_tokens"):
            assert control["notes"][name] == own["notes"][name] > 0, (own["row"], name)
    name = checkpoint.rsplit("/", 1)[-1]
    assert any(line.startswith(f"{name}+, PIQA, 0-shot: 2 texts were too long") for line in list_warnings(result))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_items_with_a_choice_that_is_too_long_are_left_out_everywhere_and_told(checkpoint, data, tmp_path):
    rows = [{"id": f"q{n}", "question": "Who reads", "choices": ["Ada", "Bo"], "answer": 0} for n in range(3)]
    rows[1]["choices"] = ["Ada", "Bo " * 300]
    write_lines(data / "piqa_val.jsonl.gz", rows)
    write_lines(data / "arc_easy_val.jsonl.gz", rows[1:2])
    write_lines(data / "arc_challenge_val.jsonl.gz", rows)
    write_lines(data / "openbookqa_val.jsonl.gz", [{**rows[1], "choices": ["Ada " * 300, "Bo " * 300]}])
    names = ["piqa", "arc", "openbookqa"]
    result = run(checkpoint, data, tmp_path / "out", names=names, shots=[0], controls=[checkpoint], check=True)
    for found in (result, *result["controls"]):
        assert [(row["row"], row["n"], row["tasks"]) for row in found["rows"]] == [
            ("PIQA", 2, ["piqa"]),
            ("ARC", 2, ["arc_challenge"]),
        ]
    assert [row["notes"]["num_left_out"] for row in result["rows"]] == [1, 1]
    assert [part["n"] for part in result["check"]] == [part["num_same_scores"] for part in result["check"]] == [2, 2]
    told = " ".join(list_warnings(result))
    assert told.count("PIQA, 0-shot: 1 items were left out: one of their choices is longer than the model takes.") == 1
    for name in ("arc_easy", "openbookqa"):
        assert (
            f"{name}, 0-shot, was left out: each of its items has a choice that is longer than the model takes."
            in told
        )
    assert "1 items were left out" in (tmp_path / "out" / "results.md").read_text()
    kept = read_scores(tmp_path / "out").tasks["piqa"]
    assert [item["id"] for item in kept["items"]] == ["q0", "q2"] and kept["notes"]["num_left_out"] == 1


def test_a_control_is_scored_on_the_items_of_the_model(checkpoint, data, tmp_path):
    rows = [{"question": f"Who {n}", "choices": ["Ada", "Bo " * (1 + 40 * n)], "answer": 0} for n in range(2)]
    write_lines(data / "piqa_val.jsonl.gz", rows)
    short = tmp_path / "short"
    shutil.copytree(checkpoint, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    ours, theirs = (str(short), checkpoint), (checkpoint, str(short))
    for own, other in (ours, theirs):
        result = run(own, data, tmp_path / f"out-{len(own)}", names=["piqa"], shots=[0], controls=[other])
        counts = {own: result["rows"][0]["n"], other: result["controls"][0]["rows"][0]["n"]}
        assert counts == {str(short): 1, checkpoint: 1 if own == str(short) else 2}
    assert "short+, PIQA, 0-shot: 1 items were left out" in " ".join(list_warnings(result))
    found = compare_models([read_scores(tmp_path / f"out-{len(name)}") for name in (checkpoint, str(short))])
    assert found[0].rows["PIQA"].n == 1 and any("1 and 0 items that the other lacks" in n for n in found[0].notes)


def test_a_run_without_controls_keeps_those_of_the_same_items(checkpoint, data, tmp_path):
    folder = tmp_path / "out"
    result = run(checkpoint, data, folder, names=["piqa"], shots=[0], controls=[checkpoint])
    assert run(checkpoint, data, folder, names=["piqa"], shots=[0])["controls"] == result["controls"] != []
    write_lines(data / "piqa_val.jsonl.gz", [{"question": "Who", "choices": ["Ada", "Bo"], "answer": 0}])
    assert run(checkpoint, data, folder, names=["piqa"], shots=[0])["controls"] == []


def test_a_control_that_can_t_be_opened_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"nobody/no-model can't be opened by transformers: .*HF_ENDPOINT"):
        open_with_hf("nobody/no-model")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="is an exported folder"):
        open_with_hf(str(tmp_path))


def test_a_control_that_does_not_suit_is_told_before_anything_is_computed(
    checkpoint, data, tmp_path, tiny_tokenizer, monkeypatch
):
    plain, exported = tmp_path / "plain", tmp_path / "exported"
    shutil.copytree(checkpoint, plain)
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    tiny_tokenizer.save_pretrained(plain)
    shutil.copytree(checkpoint, exported)
    (exported / "model.onnx").write_bytes(b"")
    out = tmp_path / "out"
    for control, message in (
        (plain, "plain has no chat template"),
        (exported, "is an exported folder"),
        (tmp_path / "none", "none can't be opened by transformers"),
    ):
        with pytest.raises(UserError, match=message):
            run(checkpoint, data, out, "instruct", ["piqa"], controls=[str(control)])
    plan, engine = plan_suite("base", data, ["piqa"], shots=[0]), TorchEngine(checkpoint, num_slots=4)
    with pytest.raises(UserError, match="is an exported folder"):
        run_suite(engine, str(exported), plan, out, check=True)
    assert not out.exists()


def test_the_table_is_written_before_the_controls_are_run(checkpoint, data, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(checkpoint, torn)
    (torn / "model.safetensors").unlink()
    out = tmp_path / "out"
    with pytest.raises(UserError, match="torn can't be opened by transformers"):
        run(checkpoint, data, out, names=["piqa"], shots=[0], controls=[str(torn)])
    assert json.loads((out / "results.json").read_text())["rows"][0]["n"] == 4
    assert "| PIQA | " in (out / "results.md").read_text() and (out / "results.html").is_file()


def test_models_whose_names_differ_by_a_sign_have_folders_of_their_own():
    names = ["a/b", "a__b", "a b", "/a/b", "a/b/"]
    assert len({name_folder(name) for name in names}) == len(names)
    assert all("/" not in name_folder(name) for name in names)
