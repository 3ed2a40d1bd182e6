"""Written prompts: word for word what the harness asks a model, item by item."""

import json

import pytest
from tests.unit.evaluation.conftest import write_lines
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.evaluation.lm import EngineLM
from small_doge.evaluation.prompts import list_prompts, write_chat_tokenizer, write_prompts
from small_doge.evaluation.running import is_chat, plan_suite, run_task
from small_doge.utils.errors import UserError


@pytest.fixture
def data(data):
    """Enough rows for the examples of every task."""
    trivia = [{"id": f"t{i}", "question": f"Who is {i}", "answer": f"No. {i}", "aliases": [str(i)]} for i in range(7)]
    write_lines(data / "triviaqa_500.jsonl.gz", trivia)
    return data


@pytest.fixture
def listen(monkeypatch):
    """Collect what a model of the harness is asked, as its methods are given it."""
    heard = []
    for name in ("loglikelihood", "generate_until"):
        real = getattr(EngineLM, name)

        def ask(self, requests, *args, real=real, **how):
            heard.extend(request.args for request in requests)
            return real(self, requests, *args, **how)

        monkeypatch.setattr(EngineLM, name, ask)
    return heard


def flatten(prompts):
    """The requests of prompts, as pairs, in order."""
    pairs = []
    for prompt in prompts:
        if "context" in prompt:
            pairs.append((prompt["context"], None))
        else:
            contexts = prompt["contexts"] * (len(prompt["continuations"]) if len(prompt["contexts"]) == 1 else 1)
            pairs += zip(contexts, prompt["continuations"], strict=True)
    return pairs


@pytest.mark.parametrize("suite", ["base", "instruct"])
def test_they_are_what_a_model_is_asked(suite, rigged, data, listen):
    plan = plan_suite(suite, data)
    lm = EngineLM(rigged(), max_length=4096, batch_size=4)
    for task in plan.tasks.values():
        listen.clear()
        run_task(lm, task, is_chat(plan, task))
        written = flatten(list_prompts(task, is_chat(plan, task)))
        assert len(written) == len(listen) > 0, task.name
        for (context, continuation), asked in zip(written, listen, strict=True):
            if is_chat(plan, task):
                assert asked[0] == lm.engine.render_text([{"role": "user", "content": context}])
            else:
                assert asked[0] == context
            assert continuation is None or asked[1] == continuation


def test_each_item_has_its_right_answer(data):
    (task,) = plan_suite("base", data, ["hellaswag"]).tasks.values()
    for row, prompt in zip(task.rows, list_prompts(task, chat=False), strict=True):
        assert prompt["choices"][prompt["answer"]] == row["choices"][row["answer"]]
        assert prompt["continuations"][prompt["answer"]].strip() == row["choices"][row["answer"]]
    (task,) = plan_suite("base", data, ["triviaqa"]).tasks.values()
    for row, prompt in zip(task.rows, list_prompts(task, chat=False), strict=True):
        assert prompt["doc"]["answer"] == row["answer"] and "shots" not in prompt["doc"]


def test_files_tell_how_each_task_is_asked_and_scored(data, tmp_path):
    plan = plan_suite("base", data, limit=1)
    content = write_prompts(plan, tmp_path)
    assert json.loads((tmp_path / "prompts.json").read_text()) == json.loads(json.dumps(content))
    assert (tmp_path / "tasks.txt").read_text().split() == [
        *("doge_mmlu", "doge_triviaqa", "doge_arc:arc_easy", "doge_arc:arc_challenge", "doge_piqa", "doge_hellaswag"),
        *("doge_openbookqa", "doge_winogrande"),
    ]
    tasks = content["tasks"]
    assert tasks["triviaqa"]["scorer"] == "match_alias" and tasks["triviaqa"]["until"] == ["\n", "Question:"]
    assert tasks["winogrande"]["metrics"] == ["acc"] and tasks["mmlu"]["metric"] == "acc_norm"
    assert tasks["mmlu"]["shots"] == 5 and not tasks["mmlu"]["chat"] and "scorer" not in tasks["mmlu"]
    for (name, _), task in plan.tasks.items():
        lines = (tmp_path / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in task.rows]


def test_prompts_are_written_for_one_number_of_examples(data, tmp_path):
    with pytest.raises(UserError, match="one number of examples; mmlu has several"):
        write_prompts(plan_suite("base", data, ["mmlu"], shots=[0, 2]), tmp_path)
    assert list(tmp_path.glob("*")) == [data]


def test_the_end_of_a_turn_becomes_the_end_token(tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tiny_tokenizer.save_pretrained(tmp_path / "model")
    assert tiny_tokenizer.eos_token == "<|end_of_text|>"
    assert write_chat_tokenizer(str(tmp_path / "model"), tmp_path / "chat") == "<|eot_id|>"
    written = AutoTokenizer.from_pretrained(tmp_path / "chat")
    assert written.eos_token == "<|eot_id|>" and written.chat_template == tiny_tokenizer.chat_template
    assert written("Ada reads.").input_ids == tiny_tokenizer("Ada reads.").input_ids
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template.*--suite base"):
        write_chat_tokenizer(str(tmp_path / "model"), tmp_path / "none")


def test_the_command_writes_them(data, tmp_path):
    done = CliRunner().invoke(
        app,
        ["eval", "prompts", "--data-root", str(data), "--tasks", "arc", "--shots", "1", "-o", str(tmp_path / "out")],
    )
    assert done.exit_code == 0, done.output
    assert "arc_easy" in done.output and (tmp_path / "out" / "arc_challenge" / "test.jsonl").is_file()
    done = CliRunner().invoke(app, ["eval", "prompts", "--tasks", "helaswag"])
    assert "did you mean 'hellaswag'" in str(done.exception)
