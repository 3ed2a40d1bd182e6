"""Model folders with missing, torn or foreign files, in every command that reads one."""

import json
import shutil

import pytest
from tests.conftest import build_tiny
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.inference import TorchEngine, open_engine
from small_doge.processor.tokenizer import build_generation_config
from small_doge.utils.errors import UserError
from small_doge.utils.model_folder import load_tokenizer


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_tokenizer):
    monkeypatch.chdir(tmp_path)
    model = build_tiny(vocab_size=len(tiny_tokenizer))
    model.generation_config = build_generation_config(tiny_tokenizer)
    model.save_pretrained("model")
    tiny_tokenizer.save_pretrained("model")
    return tmp_path / "model"


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def point(name):
    return lambda folder: (folder / name).write_text(POINTER)


def empty(name):
    return lambda folder: (folder / name).write_bytes(b"")


def listed(name):
    return lambda folder: (folder / name).write_text("[]")


JSONS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
TEARS = {
    f"{tear.__name__} {name}": (name, tear(name))
    for tear in (cut, point, empty)
    for name in ("model.safetensors", *JSONS)
} | {f"listed {name}": (name, listed(name)) for name in JSONS}


@pytest.mark.parametrize("name", TEARS)
def test_a_torn_file_is_named_with_what_is_wrong_and_what_to_do(folder, name):
    file, tear = TEARS[name]
    tear(folder)
    with pytest.raises(UserError, match=f"{file} (is cut|is damaged|is a pointer|holds no settings)") as error:
        open_engine(folder)
    assert ("git lfs pull" if name.startswith("point") else "copy it again") in str(error.value)


COMMANDS = {
    "chat": ["chat", "model"],
    "generate": ["generate", "model", "--prompt", "Ada"],
    "export": ["export", "model", "--output", "out"],
    "export hf": ["export", "model", "--format", "hf", "--output", "out"],
    "upcycle": ["upcycle", "model", "--output", "out", "--num-experts", "16", "--num-experts-per-tok", "2"],
    "bench": ["bench", "model"],
    "train": [
        *("train", "sft", "--model_name_or_path", "model", "--output_dir", "out", "--max_steps", "1"),
        *("--datasets_and_ratios", "[{embedded:chat:50: 1.0}]", "--eval_strategy", "no"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_every_command_that_reads_a_model_says_so_and_writes_nothing(folder, command, file):
    cut(file)(folder)
    done = CliRunner().invoke(app, COMMANDS[command])
    assert isinstance(done.exception, UserError) and f"{file} is" in str(done.exception), done.exception
    assert not (folder.parent / "out" / "config.json").exists()


@pytest.mark.parametrize("name", ["model/confg.json", "./modle", "/nowhere", "model/config.json"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(folder, name):
    with pytest.raises(UserError, match="there is no folder|is a file"):
        open_engine(name)
    with pytest.raises(UserError, match="did you mean model"):
        open_engine("./modle")


def test_answers_end_though_generation_config_is_missing(folder, messages):
    expected = TorchEngine(folder).end_ids
    assert len(expected) == 2
    (folder / "generation_config.json").unlink()
    assert TorchEngine(folder).end_ids == expected
    assert "no generation_config.json" in messages.text


def test_an_export_brings_the_settings_that_end_answers(folder, tmp_path):
    (folder / "generation_config.json").unlink()
    for name, command in {"onnx": "none", "hf": "int8"}.items():
        args = ["export", "model", "--format", name, "--quantize", command, "--output", name]
        assert CliRunner().invoke(app, args).exit_code == 0
        assert len(json.loads((tmp_path / name / "generation_config.json").read_text())["eos_token_id"]) == 2
        assert load_tokenizer(name) is not None


def test_a_tokenizer_larger_than_the_model_is_refused(folder, tiny_tokenizer):
    build_tiny(vocab_size=100).save_pretrained(folder)
    with pytest.raises(UserError, match="has 512 entries, and the vocab_size of .*model is 100"):
        open_engine(folder)


def test_a_model_without_a_tokenizer_is_no_error_but_a_missing_one_that_is_named_is(folder, tiny_tokenizer):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert load_tokenizer(folder) is None
    with pytest.raises(UserError, match="--tokenizer=.*model: no tokenizer could be loaded"):
        load_tokenizer(folder, "--tokenizer")


def test_an_export_is_checked_by_the_files_that_matter_and_not_by_its_card(folder, tmp_path):
    assert CliRunner().invoke(app, ["export", "model", "--quantize", "none", "--output", "out"]).exit_code == 0
    (tmp_path / "out" / "README.md").write_text("my own words")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    open_engine(tmp_path / "out")
    (tmp_path / "out" / "README.md").unlink()
    open_engine(tmp_path / "out")
    cut("tokenizer.json")(tmp_path / "out")
    with pytest.raises(UserError, match="tokenizer.json has"):
        open_engine(tmp_path / "out")


def test_a_shard_that_is_missing_is_named(folder):
    build_tiny(vocab_size=512).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    first = sorted(folder.glob("model-*.safetensors"))[0]
    shutil.move(first, folder.parent)
    with pytest.raises(UserError, match=f"names weights that are not there: {first.name}"):
        open_engine(folder)


@pytest.mark.parametrize("name", ["TokenizersBackend", "PreTrainedTokenizerFast", "LlamaTokenizerFast", None])
def test_a_tokenizer_loads_alike_whatever_class_its_settings_name(folder, tiny_tokenizer, name):
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["tokenizer_class"] = name
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    loaded = load_tokenizer(folder)
    text = "<|begin_of_text|>Ada, 31 + 4: naïve\n"
    assert loaded(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
    assert (loaded.eos_token, loaded.model_max_length) == (tiny_tokenizer.eos_token, tiny_tokenizer.model_max_length)
