"""The published guides' commands and snippets, each of which `tests/guides.py` lists, at tiny size on local data."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests.conftest import build_tiny
from tests.guides import INSTRUCTIONS
from tests.hub_copies import build_hub
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast, TextStreamer

from small_doge import DogeConfig
from small_doge.processor import ft_datasets_process, pt_datasets_process
from small_doge.trainer.recipe import load_arguments, parse_command_line


ROOT = Path(__file__).parents[2]
SINGLE = "recipes/accelerate_configs/single_gpu.yaml"
DATA = {
    "pretrain": "embedded:world:100",
    "sft": "embedded:chat:100",
    "dpo": "embedded:preference:100",
    "grpo": "embedded:problem:100",
}
QUICK = "--max_steps 1 --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --test_size 0 --total_sample_size 8 "
QUICK += "--max_length 64 --eval_strategy no --save_strategy no --report_to none --dataloader_num_workers 0"


def functions(path):
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=range(len(INSTRUCTIONS)))
def test_every_instruction_is_run_or_says_why_not(instruction):
    file, _, name = instruction.runs.rpartition("::")
    assert instruction.runs or instruction.differs
    assert not name or name in functions(ROOT / file if file else Path(__file__))


LINKED = [
    *("README.md", "README_zh.md", "recipes/doge/README.md", "recipes/doge/README_zh.md", "evaluation/README.md"),
    *(f"docs/{name}.md" for name in ("installation", "models", "webui", "faq")),
    *(
        "examples/notebook.ipynb",
        "examples/utils/download_pt_datasets.py",
        "examples/utils/train_tokenizer_from_old.py",
    ),
    "recipes/accelerate_configs",
]


@pytest.mark.parametrize("path", LINKED)
def test_files_that_the_guides_link_to_exist(path):
    assert (ROOT / path).exists()


# Data.


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return build_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def mix(monkeypatch, hub, tmp_path, tiny_tokenizer):
    """Mix as the guides call it, from copies of their data sets."""
    monkeypatch.setenv("SMALL_DOGE_DATA_ROOT", str(hub))

    def call(module, datasets_and_ratios, **settings):
        return module.mix_datasets_by_radio(
            datasets_and_ratios=datasets_and_ratios,
            processing_class=tiny_tokenizer,
            cache_dir=str(tmp_path / "cache"),
            dataset_num_proc=1,
            **settings,
        )["train"]

    return call


CHATS = [{"smoltalk": 0.8}, {"ultrafeedback_binarized": 0.2}]
TRACES = [{"OpenThoughts-114k": 0.7}, {"OpenR1-Math-220k": 0.3}]
FINE_TUNING = {"total_sample_size": 20, "max_length": 512, "apply_chat_template": True, "packing": False}


@pytest.fixture(scope="module")
def texts():
    return [
        {"fineweb-edu": 0.7},
        {"cosmopedia-v2": 0.2},
        {"finemath": 0.1},
    ]  # python-edu's archive is tested by itself


PACKED = {"total_sample_size": 20, "dataset_text_field": "text", "max_length": 64, "packing": True, "seed": 233}


def test_texts_are_mixed(mix, texts):
    rows = mix(pt_datasets_process, texts, formatting_func=None, **PACKED)
    assert (
        len(rows) == 20
        and set(rows["source"]) == {name for entry in texts for name in entry}
        and max(map(len, rows["input_ids"])) <= 64
    )


def test_chats_are_mixed(mix, tiny_tokenizer):
    rows = mix(ft_datasets_process, CHATS, dataset_text_field="text", formatting_func=None, seed=42, **FINE_TUNING)
    assert len(rows) == 20 and sum(source == "smoltalk" for source in rows["source"]) == 16
    assert "<|start_header_id|>assistant" in tiny_tokenizer.decode(rows[0]["input_ids"])


def test_an_identity_is_put_before_chats(mix, tiny_tokenizer):
    def custom_formatting_func(example):
        conversation = [
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "I am Doge."},
            {"role": "user", "content": example["prompt"]},
            {"role": "assistant", "content": example["response"]},
        ]
        return {"conversation": conversation}

    rows = mix(ft_datasets_process, CHATS, formatting_func=custom_formatting_func, seed=42, **FINE_TUNING)
    for row in rows:
        assert "I am Doge.<|eot_id|>" in tiny_tokenizer.decode(row["input_ids"])
    said = "".join(map(tiny_tokenizer.decode, rows["input_ids"]))
    assert "Good day" in said and "Name the number" in said  # of either data set


def test_reasoning_is_mixed(mix, tiny_tokenizer):
    rows = mix(ft_datasets_process, TRACES, apply_thinking_template=True, seed=123, **FINE_TUNING)
    for text in map(tiny_tokenizer.decode, rows["input_ids"]):
        assert text.count("<think>\nI add") == text.count("</think>") == 1


def test_thoughts_are_formatted(mix, tiny_tokenizer):
    def reasoning_formatting_func(example):
        answer = f"<thinking>\n{example['thinking']}\n</thinking>\n\n{example['response']}"
        return {
            "conversation": [{"role": "user", "content": example["prompt"]}, {"role": "assistant", "content": answer}]
        }

    rows = mix(ft_datasets_process, TRACES, formatting_func=reasoning_formatting_func, seed=123, **FINE_TUNING)
    for text in map(tiny_tokenizer.decode, rows["input_ids"]):
        assert text.count("<thinking>\nI add") == 1 and "begin_of_thought" not in text and "It is " in text


def test_a_saved_mix_is_trained_on(mix, texts, train, tmp_path):
    rows = mix(pt_datasets_process, texts, **PACKED)
    rows.save_to_disk(tmp_path / "pt_dataset")
    settings = {"dataset_name": str(tmp_path / "pt_dataset"), "datasets_and_ratios": None, "total_sample_size": -1}
    train(tmp_path / "out", **settings, test_size=0, eval_strategy="no", max_steps=1)
    done = train(
        tmp_path / "tuned", stage="sft", check=False, **settings, test_size=0, eval_strategy="no", max_steps=1
    )
    assert done.returncode == 1 and "the training rows have no column labels" in done.stderr
    other = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=other).save_pretrained(tmp_path / "pt_dataset" / "tokenizer")
    done = train(tmp_path / "other", **settings, check=False, test_size=0, eval_strategy="no", max_steps=1)
    assert done.returncode == 1 and "were made with another tokenizer than the model's" in done.stderr
    with pytest.raises(ValueError, match=r"prepared already: name the folder as dataset_name"):
        mix(pt_datasets_process, [{str(tmp_path / "pt_dataset"): 1.0}], max_length=64)


def test_a_conversation_is_rendered_padded_and_cut(tiny_tokenizer):
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Good day. " * 20}]
    for turns, length in ((conversation, 16), (conversation, 400)):
        settings = {"tokenize": True, "padding": "max_length", "truncation": True, "max_length": length}
        made = tiny_tokenizer.apply_chat_template(turns, return_dict=True, **settings)
        assert len(made["input_ids"]) == len(made["attention_mask"]) == length
    assert sum(made["attention_mask"]) < 400


# Sizes and experts.


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("Doge-20M", (8, 256, 512, 2, 1), 13),
        ("Doge-60M", (16, 512, 1024, 4, 2), 54),
        ("Doge-160M", (24, 768, 1536, 6, 3), 152),
        ("Doge-320M", (32, 1024, 2048, 8, 4), 335),
    ],
)
def test_sizes_have_the_guides_numbers(name, sizes, parameters):
    names = ("n_layers", "d_model", "d_ff", "n_heads", "kv_heads")
    preset = DogeConfig.from_preset(name)
    assert DogeConfig(**dict(zip(names, sizes, strict=True))).num_hidden_layers == preset.num_hidden_layers
    by_name = DogeConfig.from_preset(name, **dict(zip(names, sizes, strict=True)))
    assert by_name.to_dict() == preset.to_dict()
    with torch.device("meta"):
        count = AutoModelForCausalLM.from_config(preset).num_parameters()
    assert count == pytest.approx(parameters * 1e6, rel=0.02)


def test_experts_are_set_by_the_guides_names():
    config = DogeConfig.from_preset("Doge-20M", is_moe=True, n_experts=64, n_expert_pre_head=4)
    assert (config.model_type, config.num_experts, config.num_experts_per_tok) == ("doge_moe", 64, 4)
    words = ["--model_overrides", "{is_moe: true, n_experts: 64, n_expert_pre_head: 4}", "--output_dir", "runs/x"]
    model, *_ = load_arguments(str(ROOT / "recipes/tiny/pretrain.yaml"), parse_command_line(words)[1])
    assert model.model_overrides["num_experts"] == 64 and model.model_overrides["num_experts_per_tok"] == 4


def test_experts_have_no_heads():
    message = r"n_expert_heads=4: .*one router.*set num_experts_per_tok"
    with pytest.raises(ValueError, match=message):
        DogeConfig(is_moe=True, n_experts=64, n_expert_heads=4, n_expert_pre_head=4)
    settings = {"model_overrides": {"n_expert_heads": 4}, "output_dir": "runs/x"}
    with pytest.raises(ValueError, match=message):
        load_arguments(str(ROOT / "recipes/tiny/pretrain.yaml"), settings)


# Training.


def words_of(script, recipe, stage, base, workspace, output):
    """The guide's words for a script and a recipe, and then what makes them tiny."""
    words = [*("--config_file", SINGLE), *("--config", f"recipes/doge/{recipe}/config_full.yaml"), *QUICK.split()]
    words += ["--output_dir", str(output), "--datasets_and_ratios", f"[{{{DATA[stage]}: 1.0}}]"]
    words += ["--cache_dir", str(workspace / "data")]
    if stage == "pretrain":
        sizes = "{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, vocab_size: 512, max_position_embeddings: 64}"
        return [*words, "--model_overrides", sizes, "--tokenizer_name_or_path", str(workspace / "tokenizer")]
    words += ["--model_name_or_path", str(base)]
    if stage in ("sft", "dpo"):
        words += ["--tokens_per_step", "null"]
    if stage == "grpo":
        words += ["--num_generations", "2", "--max_completion_length", "8"]
    return words


# The launches beside the one of every test run, which has an older path and an older name of a recipe.
LAUNCHES = [
    ("pt.py", "Doge-20M", "pretrain"),
    ("sft.py", "Doge-20M-Instruct/sft", "sft"),
    ("dpo.py", "Doge-20M-Instruct/dpo", "dpo"),
    ("grpo.py", "Doge-20M-R1/grpo", "grpo"),
    ("trainer/doge/pt.py", "Doge-20M", "pretrain"),
    ("trainer/doge/sft.py", "Doge-20M-Instruct/sft", "sft"),
    ("trainer/doge/dpo.py", "Doge-20M-Instruct/dpo", "dpo"),
    ("trainer/doge/sft.py", "Doge-20M-Reason/sft", "sft"),
    ("trainer/doge/grpo.py", "Doge-20M-Reason/grpo", "grpo"),
]


@pytest.mark.parametrize(
    ("script", "recipe", "stage"),
    [
        ("sft.py", "Doge-20M-R1/sft", "sft"),
        *(pytest.param(*launch, marks=pytest.mark.slow) for launch in LAUNCHES),
    ],
)
def test_a_launch_trains(warm_python, workspace, base, tmp_path, script, recipe, stage):
    words = words_of(script, recipe, stage, base, workspace, tmp_path / "out")
    done = warm_python.run(f"./src/small_doge/{script}", *words, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "finished.json").is_file() and "put it before, for accelerate launch" in done.stderr
    if "-R1" in recipe:
        assert f"is called recipes/doge/{recipe.replace('R1', 'Reason')}/config_full.yaml here" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "behind"])
def test_accelerate_launches_a_script(workspace, base, tmp_path, place):
    script = "./src/small_doge/pt.py"
    words = words_of(script, "Doge-20M", "pretrain", base, workspace, tmp_path / "out")
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += [*words[:2], script, *words[2:]] if place == "before" else [script, *words]
    environment = {**os.environ, "ACCELERATE_LOG_LEVEL": "info", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "finished.json").is_file()


MEMORY = {
    "gradient_checkpointing": True,
    "bf16": True,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "dataloader_pin_memory": False,
    "dataloader_num_workers": 0,
    "optim": "adamw_torch_fused",
}


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_settings_that_save_memory_train(train, tmp_path, compiled):
    settings = {**MEMORY, "torch_compile": compiled, "max_steps": 1, "eval_strategy": "no", "test_size": 0}
    done = train(tmp_path / "out", **settings)
    assert "gradient_checkpointing is called activation_checkpointing here" in done.stderr
    assert compiled == ("torch_compile=True is replaced by False" in done.stderr)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="a CPU takes no fp16, which tests/unit/trainer/test_recipe.py checks"
)
def test_two_precisions_are_refused():
    settings = {**MEMORY, "fp16": True, "torch_compile": True, "output_dir": "runs/x"}
    with pytest.raises(ValueError, match="fp16"):
        load_arguments(str(ROOT / "recipes/tiny/pretrain.yaml"), settings)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--per_device_train_batch_size 1 --gradient_accumulation_steps 16 --gradient_checkpointing True",
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "activation_checkpointing": True},
        ),
        (
            "--learning_rate 4e-3 --warmup_ratio 0.15 --weight_decay 0.01",
            {"learning_rate": 4e-3, "warmup_steps": 0.15, "weight_decay": 0.01},
        ),
        (
            "--bf16 True --torch_compile True --dataloader_num_workers 4",
            {"torch_compile": torch.cuda.is_available()},  # a machine with fewer cores takes fewer workers
        ),
        (
            " ".join(f"--{name} {value}" for name, value in MEMORY.items()),
            {"activation_checkpointing": True, "optim": "adamw_torch_fused", "dataloader_pin_memory": False},
        ),
    ],
)
def test_settings_of_the_training_guide_are_taken(words, expected):
    _, settings = parse_command_line(words.split())
    _, _, args, _ = load_arguments(str(ROOT / "recipes/doge/Doge-20M/config_full.yaml"), settings)
    assert {name: getattr(args, name) for name in expected} == expected


def test_batches_are_tried(tiny_model, capsys):
    def test_training_step(model, batch_size):
        ids = torch.randint(0, 97, (batch_size, 16))
        model(ids, labels=ids).loss.backward()
        if batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")  # which a CPU doesn't tell

    for batch_size in [1, 2, 4, 8, 16]:
        try:
            test_training_step(tiny_model, batch_size)
            print(f"Batch size {batch_size}: OK")
        except RuntimeError as error:
            if "out of memory" in str(error):
                print(f"Batch size {batch_size}: OOM")
                break
    assert capsys.readouterr().out.splitlines()[-2:] == ["Batch size 4: OK", "Batch size 8: OOM"]


def test_a_cycle_of_rates_trains(tiny_model):
    optimizer = torch.optim.AdamW(tiny_model.parameters())
    settings = {"max_lr": 8e-3, "total_steps": 20, "pct_start": 0.1, "div_factor": 25, "final_div_factor": 1000}
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, **settings)
    ids, losses, rates = torch.randint(0, 97, (4, 16)), [], []
    for _ in range(20):
        loss = tiny_model(ids, labels=ids).loss
        losses.append(loss.item())
        rates.append(scheduler.get_last_lr()[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if len(rates) < 20:
            scheduler.step()
    assert losses[-1] < losses[0] and max(rates) == pytest.approx(8e-3) and rates[-1] < rates[0]


def test_libraries_stay_as_talkative_as_they_are_told_to_be():
    code = (
        "from small_doge.utils.logging import quiet_libraries; import transformers; quiet_libraries();"
        "print(transformers.logging.get_verbosity())"
    )
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "debug"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "10"


# Use.


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("model")
    build_tiny(vocab_size=512).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_is_loaded_from_the_command_line(warm_python, model_folder):
    load = f"AutoModelForCausalLM.from_pretrained({model_folder!r}, trust_remote_code=True)"
    done = warm_python.run("-c", f"from transformers import AutoModelForCausalLM; {load}")
    assert done.returncode == 0, done.stderr


def test_a_base_model_goes_on_with_a_text(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, trust_remote_code=True)
    inputs = tokenizer("Hey how are you doing?", return_tensors="pt")
    outputs = model.generate(**inputs, max_new_tokens=20)
    assert tokenizer.batch_decode(outputs)[0].startswith("<|begin_of_text|>Hey how are you doing?")


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_an_answer_is_streamed(model_folder, capsys, with_tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, trust_remote_code=True)
    generation_config = GenerationConfig(
        max_new_tokens=10, use_cache=True, do_sample=True, temperature=0.8, top_p=0.9, repetition_penalty=1.0
    )
    streamer = TextStreamer(tokenizer=tokenizer, skip_prompt=True)
    conversation = [{"role": "user", "content": "Hi, how are you doing today?"}]
    inputs = tokenizer.apply_chat_template(conversation=conversation, tokenize=True, return_tensors="pt")
    more = {"tokenizer": tokenizer} if with_tokenizer else {}
    outputs = model.generate(inputs, generation_config=generation_config, streamer=streamer, **more)
    new = outputs[0, inputs["input_ids"].shape[1] :]
    assert 1 <= len(new) <= 10 and capsys.readouterr().out.strip() == tokenizer.decode(new).strip()


def test_the_page_has_its_command():
    with open(ROOT / "pyproject.toml", "rb") as file:
        module, _, name = tomllib.load(file)["project"]["scripts"]["small-doge-webui"].partition(":")
    assert callable(getattr(import_module(module), name))


MODULES = """
import torch
from model.modules.innerfuncattn import InnerFuncAttn
from model.modules.cdmoe import CDMoE
batch, seq_len, dim = 2, 16, 64
x = torch.rand(batch, seq_len, dim)
attention_mask = torch.ones(batch, seq_len)
attn = InnerFuncAttn(d_model=dim, n_heads=1, n_inner_values=1, max_position_embeddings=seq_len, layer_idx=0)
y, past_key_values = attn(x, attention_mask)
cdmoe = CDMoE(
    d_model=dim, act_fn="silu", d_cross_domain=dim * 4, d_private_expert=dim,
    n_experts=64, n_experts_heads=1, n_experts_per_head=2,
)
print(x.shape == y.shape == cdmoe(x).shape, past_key_values.get_seq_length(0))
"""


def test_modules_stand_alone(warm_python):
    done = warm_python.run("-c", MODULES, cwd=ROOT)
    assert done.stdout.split() == ["True", "16"], done.stderr
