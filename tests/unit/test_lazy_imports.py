"""Importing the package and asking a command for help load no heavy library, and the Auto classes know Doge all the same."""

import subprocess
import sys

import pytest

import small_doge
import small_doge.inference
import small_doge.models
import small_doge.processor


# Each takes from a tenth of a second to seconds.
HEAVY = {"accelerate", "datasets", "matplotlib", "numpy", "pandas", "tokenizers", "torch", "transformers", "trl"}
LOADED = f"import sys; print(sorted({HEAVY!r} & set(sys.modules)))"


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_heavy_library():
    assert run_python(f"import small_doge; {LOADED}").strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["data", "prepare", "--help"],
        ["serve", "--help"],
        ["train", "sft", "--help"],
        ["export", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_help_and_usage_errors_load_no_heavy_library(words):
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded:', sorted({HEAVY!r} & set(sys.modules))))\n"
        f"sys.argv = ['small-doge', *{words!r}]\n"
        "from small_doge.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )
    assert run_python(code).splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    "code",
    [
        "import small_doge; from transformers import AutoConfig, AutoModelForCausalLM",
        "from transformers import AutoConfig, AutoModelForCausalLM; import small_doge",
        "from small_doge import DogeForCausalLM; from transformers import AutoConfig, AutoModelForCausalLM",
    ],
)
def test_auto_classes_build_our_doge_whichever_comes_first(code):
    build = (
        "sizes = dict(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, "
        "num_attention_heads=2, num_key_value_heads=1)\n"
        "for kind in ('doge', 'doge_moe'):\n"
        "    config = AutoConfig.for_model(kind, **sizes)\n"
        "    print(type(config).__module__, type(AutoModelForCausalLM.from_config(config)).__module__)"
    )
    ours = "small_doge.models.doge.configuration_doge small_doge.models.doge.modeling_doge"
    assert run_python(f"{code}\n{build}").splitlines() == [ours, ours]


@pytest.mark.parametrize(
    "package", [small_doge, small_doge.inference, small_doge.models, small_doge.processor], ids=lambda p: p.__name__
)
def test_every_exported_name_can_be_imported(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018
