"""The guides' evaluation scripts: the one for Windows mirrors the other, which calls its programs as it should."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[3] / "evaluation"
BASH = FOLDER / "eval_downstream_tasks.sh"
POWERSHELL = FOLDER / "eval_downstream_tasks.ps1"


def read(path):
    return path.read_text(encoding="utf-8")


def test_both_scripts_have_the_same_settings_in_the_same_order():
    bash = re.findall(r'^(\w+)="\$\{\1:-(.*?)\}"\s*(?:# (.*))?$', read(BASH), flags=re.MULTILINE)
    powershell = re.findall(
        r'^\$(\w+) = Get-Setting "\1" "(.*?)"\s*(?:# (.*))?$', read(POWERSHELL), flags=re.MULTILINE
    )
    assert bash == powershell and len(bash) == 13


def test_both_scripts_name_the_same_commands_options_and_files():
    bash, powershell = read(BASH), read(POWERSHELL).replace("$env:", "$")
    for pattern in (
        r"--[a-z][a-z-]+(?![a-z-]*=)",
        r"\b(?:model_name|batch_size|dtype|cache_dir|max_length|override_chat_template|add_special_tokens|tokenizer)=[\w$/,]*",
        r"\b(?:eval prompts|accelerate)\b",
        r"\w+\.(?:py|txt)\b",
    ):
        assert re.findall(pattern, bash) == re.findall(pattern, powershell) != [], pattern


def test_both_scripts_have_the_same_comments():
    comments = [re.findall(r"^# (?![$A-Z]*MODEL)(.*)$", read(path), flags=re.MULTILINE) for path in (BASH, POWERSHELL)]
    assert [line for line in comments[0] if not line.startswith(" ")] == [
        line for line in comments[1] if not line.startswith(" ")
    ]


@pytest.fixture
def call(tmp_path):
    """Run the script with programs in place that write down how they are called."""
    for name in ("small-doge", "lighteval"):
        program = tmp_path / name
        program.write_text(
            '#!/bin/sh\nprintf "%s\\n" "$0 in $PWD" "$@" "prompts=$PROMPTS_DIR offline=$HF_HUB_OFFLINE" >> "$CALLS"\n'
            f'test -z "$FAIL_{name.replace("-", "_")}"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "models" / "mine").mkdir(parents=True)

    def run(script=BASH, **settings):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {
            **kept,
            "CALLS": str(calls),
            "SMALL_DOGE": "./small-doge",
            "LIGHTEVAL": "./lighteval",
            "TMPDIR": str(tmp_path / "temporary"),
            **settings,
        }
        (tmp_path / "temporary").mkdir(exist_ok=True)
        done = subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_a_folder_is_asked_the_prompts_in_plain_text_without_a_network(call, tmp_path):
    done, lines = call(MODEL="./models/mine", OUTPUT_DIR="./out", DATA_ROOT="./d", LIMIT="3", TASKS="arc,piqa")
    assert done.returncode == 0, done.stderr
    folder = f"{tmp_path}/out/prompts-base"
    start = lines.index(f"{tmp_path}/./lighteval in {tmp_path}/models")
    assert lines[1:start] == [
        *("eval", "prompts", "--suite", "base", "--data-root", "./d", "--output-dir", folder),
        *("--tasks", "arc,piqa", "--limit", "3", f"prompts={folder} offline="),
    ]
    command, settings, tasks, *options, seen = lines[start + 1 :]
    assert command == "accelerate" and tasks == f"{folder}/tasks.txt" and seen == f"prompts={folder} offline=1"
    assert re.fullmatch(
        r"model_name=mine,batch_size=8,dtype=float32,cache_dir=\S+,override_chat_template=False", settings
    )
    assert options == [
        *("--custom-tasks", f"{FOLDER}/lighteval_tasks.py", "--output-dir", f"{tmp_path}/out"),
        "--no-remove-reasoning-tags",
    ]
    assert list((tmp_path / "temporary").iterdir()) == [] and list((tmp_path / "models" / "mine").iterdir()) == []


def test_a_model_that_chats_is_asked_in_its_template_and_stopped_at_the_end_of_its_turn(call, tmp_path):
    done, lines = call(MODEL="some/hub-name", OUTPUT_DIR="out", SUITE="instruct", SAVE_DETAILS="1", MAX_LENGTH="99")
    assert done.returncode == 0, done.stderr
    folder = f"{tmp_path}/out/prompts-instruct"
    assert lines[lines.index("--tokenizer") + 1] == "some/hub-name" and "--save-details" in lines
    settings = next(line for line in lines if line.startswith("model_name="))
    assert settings.startswith("model_name=some/hub-name,") and settings.endswith(
        f",max_length=99,override_chat_template=True,add_special_tokens=False,tokenizer={folder}/tokenizer"
    )
    assert lines[-1] == f"prompts={folder} offline="


def test_a_program_that_fails_or_is_missing_ends_the_script(call):
    done, lines = call(MODEL="./models/mine", OUTPUT_DIR="./out", FAIL_small_doge="1")
    assert done.returncode == 1 and not any("lighteval in" in line for line in lines)
    done, _ = call(MODEL="./models/mine", OUTPUT_DIR="./out", FAIL_lighteval="1")
    assert done.returncode == 1
    done, lines = call(MODEL="./models/mine", LIGHTEVAL="no-such-program")
    assert done.returncode == 1 and "make setup lighteval" in done.stderr and not lines
    done, lines = call(MODEL="./models/other")
    assert done.returncode == 1 and "MODEL=./models/other: there is no such folder" in done.stderr and not lines
    done, lines = call(SUITE="reason")
    assert done.returncode == 1 and "SUITE=reason: lighteval asks base or instruct" in done.stderr and not lines


def test_values_may_be_edited_at_the_top_and_the_programs_lie_on_the_path(call, tmp_path):
    script = tmp_path / "evaluation" / BASH.name
    script.parent.mkdir()
    text = read(BASH).replace("./runs/demo/pretrain}", "./models/mine}").replace("./eval_results}", "./mine}")
    script.write_text(text, encoding="utf-8")
    done, lines = call(
        f"./evaluation/{BASH.name}", SMALL_DOGE="", LIGHTEVAL="", PATH=f"{tmp_path}:{os.environ['PATH']}"
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/small-doge in {tmp_path}" in lines and f"{tmp_path}/lighteval in {tmp_path}/models" in lines
    assert lines[lines.index("--custom-tasks") + 1] == f"{tmp_path}/evaluation/lighteval_tasks.py"
    assert f"{tmp_path}/mine/prompts-base/tasks.txt" in lines


def test_the_guides_lines_run_as_they_stand(call, tmp_path):
    guide = tmp_path / "guide.sh"
    guide.write_text(
        'export MODEL="./models/mine"\n'
        'export OUTPUT_DIR="./eval_results"\n'
        f"ln -s {FOLDER} evaluation\n"
        "bash ./evaluation/eval_downstream_tasks.sh\n"
    )
    done, lines = call(guide)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/eval_results/prompts-base/tasks.txt" in lines and (FOLDER / "README.md").is_file()
