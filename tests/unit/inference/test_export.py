"""Exported folders: whole, checked, refused where they would lose too much, and told apart from anything else."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.conftest import EXPERTS
from typer.testing import CliRunner

from small_doge.cli import main as module
from small_doge.inference import OnnxEngine, TorchEngine, open_engine
from small_doge.inference.checkpoints import open_checkpoint
from small_doge.inference.export import export_hf, export_onnx
from small_doge.utils.errors import UserError
from small_doge.utils.files import write_manifest
from small_doge.utils.vocabulary import hash_vocabulary

from .conftest import LONGROPE, build_model, distinct_tokens


pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
runner = CliRunner()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    special = {name: getattr(tiny_tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    build_model(vocab_size=512, keep_window_size=16, **special).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The checkpoint in every format, by the command."""
    out = tmp_path_factory.mktemp("exported")
    for name in ("none", "int8", "int4"):
        done = runner.invoke(
            module.app,
            ["export", str(checkpoint), "-o", str(out / name), "--quantize", name, "--max-perplexity-increase", "10"],
        )
        assert done.exit_code == 0, done.output + str(done.exception)
    return out


def test_float32_folder_writes_what_the_checkpoint_writes_past_the_window_too(checkpoint, exported):
    onnx, torch_engine = OnnxEngine(exported / "none"), TorchEngine(checkpoint)
    for prompt in ("Ada lives in", "What is 3 + 4?"):
        options = {"max_new_tokens": 60, "ignore_eos": True}
        ids = onnx.encode(prompt)
        assert list(onnx.stream(ids, **options)) == list(torch_engine.stream(ids, **options))


def test_an_export_is_not_opened_with_another_tokenizer_than_it_was_trained_with(exported, tiny_tokenizer, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(exported / "none", folder)
    config = json.loads((folder / "config.json").read_text())

    def record(vocabulary_hash):
        (folder / "config.json").write_text(json.dumps({**config, "vocabulary_hash": vocabulary_hash}))
        write_manifest(folder)

    record(hash_vocabulary(tiny_tokenizer))
    OnnxEngine(folder, threads=1)
    record(f"{len(tiny_tokenizer)}-0123456789abcdef")
    with pytest.raises(UserError, match="the tokenizer is not the one that .*export was trained with"):
        OnnxEngine(folder, threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "tanh"}, "hidden_act='tanh' cannot be exported; train with one of: silu"),
        ({"rope_parameters": LONGROPE}, "rope_type='longrope' changes its frequencies.*one of: default, .*dynamic"),
    ],
)
def test_what_has_no_graph_is_named_before_the_graph_is_built(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("small_doge.inference.graph.DogeGraph.__init__", lambda *_: pytest.fail("built"))
    with pytest.raises(UserError, match=message):
        export_onnx(build_model(**change), None, tmp_path / "out")


@pytest.mark.parametrize("size", [4, 12, 20])
def test_a_head_size_that_onnx_runtime_lacks_is_named_before_the_graph_is_built(tmp_path, monkeypatch, size):
    monkeypatch.setattr("small_doge.inference.graph.DogeGraph.build", lambda self: pytest.fail("built"))
    model = build_model(hidden_size=4 * size)
    with pytest.raises(
        UserError, match=rf"hidden_size={4 * size} and num_attention_heads=4 give heads of {size}.*of 8"
    ):
        export_onnx(model, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1},
        {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1},
        {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 17},
        {"vocab_size": 33, "intermediate_size": 1, "tie_word_embeddings": False, "keep_window_size": 1},
    ],
)
def test_sizes_that_no_block_divides_are_computed_as_pytorch_does(make_backend, quantize, sizes):
    model, ids = build_model(**{"keep_window_size": 64, **sizes}), np.arange(20)
    backend = make_backend(model, quantize)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in backend.rounded.items()}, strict=False)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    found = backend.prefill(0, ids, keep=np.arange(20))
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["none", "int8", "int4"])
def test_folder_holds_all_that_is_needed_and_says_what_it_lost(exported, name):
    files = {path.name for path in (exported / name).iterdir()}
    assert files >= {"model.onnx", "runtime.json", "tokenizer.json", "generation_config.json", "config.json"}
    assert files >= {"README.md", "manifest.json", "chat_template.jinja"}
    assert not any(path.suffix in (".bin", ".pkl", ".pt") for path in (exported / name).iterdir())
    card = (exported / name / "README.md").read_text()
    assert "perplexity of the export" in card and "tokens/s" in card and "same greedy text" in card
    engine = open_engine(exported / name)
    assert isinstance(engine, OnnxEngine)
    assert len(list(engine.stream([5, 6], max_new_tokens=4, ignore_eos=True))) == 4


def test_graph_names_its_inputs_and_outputs_as_documented(exported):
    import onnx

    graph = onnx.load(exported / "none" / "model.onnx").graph
    inputs = {value.name for value in graph.input}
    assert inputs == {"input_ids", "position_ids", "logits_to_keep", "past_scores", "num_keys"} | {
        f"past_{kind}.{layer}" for kind in ("key", "value") for layer in (0, 1)
    }
    assert {value.name for value in graph.output} == {"logits", "hidden_states", "present_scores"} | {
        f"present_{kind}.{layer}" for kind in ("key", "value") for layer in (0, 1)
    }
    assert "num_keys" in {value.name for value in graph.initializer}  # what may be left out


def test_an_export_writes_and_chats_without_pytorch(exported):
    folder = exported / "none"
    code = (
        "import sys\n"
        "from small_doge.inference import OnnxEngine\n"
        "from small_doge.inference.export_cache import open_fast_engine\n"
        f"engine = OnnxEngine({str(folder)!r})\n"
        "text = engine.generate('Ada lives in', max_new_tokens=4, ignore_eos=True)\n"
        "turn = [{'role': 'user', 'content': 'Ada lives in'}]\n"
        "answer = ''.join(engine.chat(turn, max_new_tokens=4, ignore_eos=True))\n"
        f"opened = open_fast_engine({str(folder)!r}).generate('Ada lives in', max_new_tokens=4, ignore_eos=True)\n"
        "print(bool(text), bool(answer), opened == text, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "True", "False"]


def test_quantised_files_are_smaller(exported):
    sizes = {name: (exported / name / "model.onnx").stat().st_size for name in ("none", "int8", "int4")}
    assert sizes["int4"] < sizes["int8"] < sizes["none"]


def test_an_export_that_loses_too_much_is_refused_and_leaves_nothing(checkpoint, tmp_path):
    done = runner.invoke(
        module.app,
        [
            "export",
            str(checkpoint),
            "-o",
            str(tmp_path / "out"),
            "--quantize",
            "int4",
            "--max-perplexity-increase",
            "0.0",
        ],
    )
    # Random weights: the loss may fall on either side of zero, so ask for the impossible when it does.
    if done.exit_code == 0:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(UserError, match="int4 raises the perplexity by"):
            export_onnx(build_model(vocab_size=512), None, tmp_path / "out", "int4", max_perplexity_increase=-1.0)
    else:
        assert "int4 raises the perplexity by" in str(done.exception)
        assert "--max-perplexity-increase" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_the_former_name_of_the_quality_limit_is_answered_with_the_new_one():
    done = runner.invoke(module.app, ["export", "nowhere", "--max-loss", "0.1"])
    assert "--max-perplexity-increase 0.1" in str(done.exception)
    assert "max-loss" not in runner.invoke(module.app, ["export", "--help"]).output


def test_torn_and_foreign_folders_are_named(exported, checkpoint, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(exported / "none", torn)
    with open(torn / "model.onnx", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="model.onnx has 1000 bytes, not .*; export the model again"):
        OnnxEngine(torn)
    (torn / "model.onnx").unlink()
    with pytest.raises(UserError, match="model.onnx is missing"):
        open_engine(torn)
    (torn / "runtime.json").write_text("{")
    with pytest.raises(UserError, match=r"runtime.json is damaged"):
        OnnxEngine(torn)
    (torn / "runtime.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="format 'other'"):
        OnnxEngine(torn)
    with pytest.raises(UserError, match="has no runtime.json: .* export it: small-doge export"):
        OnnxEngine(checkpoint)
    with pytest.raises(UserError, match="is not a folder"):
        OnnxEngine(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is an export already"):
        open_checkpoint(exported / "none")


def test_model_of_another_family_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    done = runner.invoke(module.app, ["export", str(tmp_path / "llama"), "-o", str(tmp_path / "out")])
    assert "is a llama model, not a Doge model" in str(done.exception)


def test_dynamic_rope_is_exported_for_a_stated_length(tmp_path, tiny_tokenizer):
    model = build_model(
        vocab_size=512,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        max_position_embeddings=32,
    )
    facts = export_onnx(model, tiny_tokenizer, tmp_path / "short", "none", name="short")
    assert facts["longest text"] == "32 tokens"
    facts = export_onnx(model, tiny_tokenizer, tmp_path / "long", "none", max_length=100, name="long")
    assert facts["longest text"] == "100 tokens"
    assert "fixed for texts of up to 100 tokens" in (tmp_path / "long" / "README.md").read_text()
    with pytest.raises(UserError, match="takes 32 with the answer"):
        OnnxEngine(tmp_path / "short").stream(list(range(40)))
    assert len(list(OnnxEngine(tmp_path / "long").stream(list(range(40)), max_new_tokens=90, ignore_eos=True))) == 60
    assert model.model.rotary_emb.rope_type == "dynamic"  # the model itself is left as it was


def test_a_stated_length_below_the_window_is_kept_to(tmp_path, tiny_tokenizer):
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = build_model(vocab_size=512, keep_window_size=512, rope_parameters=rope)
    export_onnx(model, tiny_tokenizer, tmp_path / "short", "none", max_length=20)
    engine = OnnxEngine(tmp_path / "short", threads=1)
    assert len(list(engine.stream([5, 6, 7], max_new_tokens=90, ignore_eos=True))) == 17
    with pytest.raises(ValueError, match="21 tokens do not fit: the model takes 20"):
        engine.backend.prefill(0, np.arange(21))


def test_hf_folder_of_experts_loads_without_small_doge(tmp_path, tiny_tokenizer):
    model = build_model(vocab_size=512, **EXPERTS)
    export_hf(model, tiny_tokenizer, tmp_path / "moe")
    tokens = distinct_tokens(20, 512)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)[None, :8]).logits[0].numpy()  # within the window: no ties
    np.save(tmp_path / "tokens.npy", tokens[:8])
    code = (
        "import sys, numpy as np, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'moe')!r}, trust_remote_code=True).eval()\n"
        f"AutoTokenizer.from_pretrained({str(tmp_path / 'moe')!r})\n"
        f"ids = torch.from_numpy(np.load({str(tmp_path / 'tokens.npy')!r}))[None]\n"
        "with torch.no_grad():\n"
        f"    np.save({str(tmp_path / 'logits.npy')!r}, model(ids).logits[0].numpy())\n"
        "model.generate(ids, max_new_tokens=3, do_sample=False)\n"
        "assert 'small_doge' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-4 * np.abs(expected).max())
    again = TorchEngine(tmp_path / "moe")
    assert len(list(again.stream([1, 2], max_new_tokens=3, ignore_eos=True))) == 3


def test_hf_folder_of_a_dense_model_is_clean(checkpoint, tmp_path):
    done = runner.invoke(module.app, ["export", str(checkpoint), "-o", str(tmp_path / "hf"), "--format", "hf"])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == "doge" and "auto_map" not in config
    assert {path.suffix for path in (tmp_path / "hf").iterdir()} <= {".json", ".md", ".safetensors", ".jinja"}


def test_adapter_is_merged_only_when_asked(checkpoint, tmp_path):
    peft = pytest.importorskip("peft")
    base = TorchEngine(checkpoint).backend.model
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(checkpoint)
    adapted.save_pretrained(tmp_path / "adapter")
    words = ["export", str(tmp_path / "adapter"), "-o", str(tmp_path / "out"), "--quantize", "none"]
    assert f"small-doge export {words[1]} --merge-lora" in str(runner.invoke(module.app, words).exception)
    done = runner.invoke(module.app, [*words, "--merge-lora"])
    assert done.exit_code == 0, done.output + str(done.exception)
    merged = TorchEngine(adapted.merge_and_unload())
    ids = [7, 8, 9]
    found = list(OnnxEngine(tmp_path / "out").stream(ids, max_new_tokens=10, ignore_eos=True))
    assert found == list(merged.stream(ids, max_new_tokens=10, ignore_eos=True))
    done = runner.invoke(module.app, ["export", str(checkpoint), "-o", str(tmp_path / "x"), "--merge-lora"])
    assert "leave --merge-lora out" in str(done.exception)


def test_missing_extra_names_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = runner.invoke(module.app, ["export", str(checkpoint), "-o", str(tmp_path / "out")])
    assert "pip install 'small-doge[export]'" in str(done.exception)


def test_generate_and_bench_take_exported_folders_and_checkpoints(exported, checkpoint, tmp_path):
    texts = []
    for folder in (exported / "none", checkpoint):
        done = runner.invoke(module.app, ["generate", str(folder), "-p", "Ada", "--max-new-tokens", "12"])
        assert done.exit_code == 0, done.output
        texts.append(done.output)
        words = ["--depths", "0,40", "--batch-sizes", "1,2", "--new-tokens", "2", "--threads", "1"]
        done = runner.invoke(module.app, ["bench", str(folder), *words, "-o", str(tmp_path)])
        assert done.exit_code == 0, done.output
        rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
        assert [(row["depth"], row["batch"]) for row in rows] == [(0, 1), (40, 1), (0, 2), (40, 2)]
        assert all(row["decode_tok_s"] > 0 and row["state_mib"] > 0 for row in rows)
        assert (tmp_path / "bench.png").stat().st_size > 5000
    assert texts[0] == texts[1]
    done = runner.invoke(module.app, ["bench", str(checkpoint), "--depths", "a,b"])
    assert "--depths 'a,b' must be whole numbers" in str(done.exception)


def test_generate_follows_a_json_schema_from_a_file(exported, tmp_path):
    pytest.importorskip("llguidance")
    (tmp_path / "schema.json").write_text(json.dumps({"type": "array", "items": {"type": "boolean"}, "maxItems": 2}))
    words = ["generate", str(exported / "none"), "-p", "", "--json-schema", str(tmp_path / "schema.json")]
    done = runner.invoke(module.app, words)
    assert done.exit_code == 0, done.output
    assert all(isinstance(item, bool) for item in json.loads(done.output))
    done = runner.invoke(module.app, [*words[:-1], "nowhere.json"])
    assert "neither a schema nor a file" in str(done.exception)


def test_chat_answers_keeps_history_and_obeys_commands(exported, tmp_path):
    saved = tmp_path / "chat.json"
    lines = ["Hi", "/system Be brief.", "One", "Two", f"/save {saved}", "/sav x", "/reset", "/help", "/exit"]
    words = ["chat", str(exported / "none"), "--max-new-tokens", "5"]
    done = runner.invoke(module.app, words, input="\n".join(lines) + "\n")
    assert done.exit_code == 0, done.output
    assert "tokens" in done.output and "cached" in done.output
    assert "did you mean 'save'" in done.output
    assert "/system TEXT" in done.output
    roles = [message["role"] for message in json.loads(saved.read_text())["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_chat_with_a_model_that_has_no_template_is_refused_at_once(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    done = runner.invoke(module.app, ["chat", str(tmp_path / "plain")], input="Hi\n")
    assert "has no chat template" in str(done.exception)
