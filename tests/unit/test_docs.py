"""Documents are code: what they tell a reader to run exists, and both READMEs say the same."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch
import typer.main
from tests.doc_links import move_links

from small_doge import DogeConfig, DogeForCausalLM
from small_doge.cli.main import app
from small_doge.trainer.recipe import known_settings, load_arguments, parse_command_line, read_recipe
from small_doge.trainer.stages import STAGES


ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README_zh.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "evaluation" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "recipes" / "doge").glob("*.md")),
]
KNOWN = {name for stage in STAGES.values() for name in known_settings(stage.list_arguments())}
COMMANDS = typer.main.get_command(app)


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def check_small_doge(words):
    command = COMMANDS
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        if words[0] not in command.commands and hasattr(command, "default_command"):
            break
        assert words[0] in command.commands, f"small-doge has no command {words[0]}"
        command = command.commands[words.pop(0)]
    if hasattr(command, "default_command"):
        command = command.commands[command.default_command]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    free = command.context_settings.get("ignore_unknown_options", False)
    for word in words:
        if word.startswith("--"):
            name = word.split("=")[0]
            assert name in options or (free and name[2:].rpartition(".")[2] in KNOWN), f"unknown option {name}"


def check_script(words):
    for word in words:
        if re.fullmatch(r"(recipes|src|benchmarks|examples)/\S+", word):
            assert (ROOT / word).exists(), f"{word} does not exist"
    if words[0].startswith("examples/"):
        text = (ROOT / "src/small_doge/compat/data_scripts.py").read_text(encoding="utf-8")
        assert all(f'"{word}"' in text or f'"{word[2:]}"' in text for word in words if word.startswith("--"))
        return
    for option in (word for word in words if word.startswith("--")):
        assert option in ("--config", "--config_file") or option[2:] in KNOWN


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for block in blocks(path, "bash"):
        for line in block.strip().splitlines():
            words = [w for w in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", w)]
            program = words.pop(0)
            if program == "make":
                assert set(words) <= targets, line
            elif program == "small-doge":
                check_small_doge(words)
            elif program == "bash":
                settings = (ROOT / words[0]).read_text(encoding="utf-8")
                named = [w.split("=")[0] for w in shlex.split(line) if re.fullmatch(r"[A-Z_]+=\S*", w)]
                assert all(f"${{{name}:-" in settings for name in named), line
            elif program == "node":
                assert (ROOT / words[0]).exists(), line
            elif program == "python" and words[0] == "-m":
                importlib.import_module(words[1])
            elif program in ("python", "accelerate"):
                check_script(words)
            else:
                pytest.fail(f"no check for: {line}")
            if "--config" in words:
                assert (ROOT / words[words.index("--config") + 1]).exists(), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_snippets_parse_and_their_imports_exist(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                importlib.import_module(node.names[0].name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_and_named_files_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (path.parent / link).exists(), link
    for name in re.findall(r"`((?:recipes|src|tests|docs|benchmarks)/[^`\s]*\.\w+)`", text):
        assert (ROOT / name).exists(), name


def list_anchors(path):
    """The anchors of a document's headings, as GitHub makes them and `tools/site_hooks.py` lets MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_to_headings_lead_to_one(path):
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*\.md)?#([^)\s]+)\)", path.read_text(encoding="utf-8")):
        assert anchor in list_anchors(path.parent / link if link else path), f"{link}#{anchor}"


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.parent.name == "docs"], ids=lambda p: p.name)
def test_links_of_untranslated_pages_lead_to_headings_of_chinese_ones_too(path):
    if path.name.endswith(".zh.md") or path.with_suffix(".zh.md").exists():
        return
    for link, anchor in re.findall(r"\]\(([\w-]+\.md)#([^)\s]+)\)", path.read_text(encoding="utf-8")):
        chinese = (path.parent / link).with_suffix(".zh.md")
        if chinese.exists():
            told = re.findall(r'<a id="(.*?)">', chinese.read_text(encoding="utf-8"))
            assert anchor in list_anchors(chinese) | set(told), f"{chinese.name} needs an anchor {anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_to_lines_lead_to_what_they_name(path):
    assert path.read_text(encoding="utf-8") == move_links(path), "code has moved; run: make links"


def test_the_walks_through_the_code_take_a_dozen_steps_each_at_most():
    _, batch, token = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8").split("\n## ")
    for walk in (batch, token):
        steps = [int(number) for number in re.findall(r"^(\d+)\. ", walk, flags=re.MULTILINE)]
        assert steps == list(range(1, len(steps) + 1)) and 8 <= len(steps) <= 12


TWINS = [
    (ROOT / "README.md", ROOT / "README_zh.md"),
    (ROOT / "recipes" / "doge" / "README.md", ROOT / "recipes" / "doge" / "README_zh.md"),
    *((path.with_name(path.name.replace(".zh", "")), path) for path in sorted((ROOT / "docs").glob("*.zh.md"))),
]


def outline(path):
    """What both languages of a document share: the levels of headings, code, links and the numbers of tables' cells."""
    text = path.read_text(encoding="utf-8")
    code = re.findall(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    return {
        "headings": re.findall(r"^#+(?= )", prose, flags=re.MULTILINE),
        "code": code,
        "links": [re.sub(r"(\.zh|_zh)(?=\.(?:md|ipynb))", "", re.sub(r"#.*", "", link)) for link in links],
        "tables": [len(re.split(r"(?<!\\)\|", row)) for row in re.findall(r"^\|.*$", prose, flags=re.MULTILINE)],
        "items": len(re.findall(r"^ *(?:-|\d+\.) ", prose, flags=re.MULTILINE)),
    }


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=lambda path: path.name)
def test_both_languages_have_the_same_headings_code_links_and_tables(english, chinese):
    first, second = outline(english), outline(chinese)
    for part in first:
        assert first[part] == second[part], part


def test_both_readmes_tell_the_same_sizes():
    rows = [re.findall(r"^\| Doge.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE) for path in TWINS[0]]
    assert rows[0] == rows[1] and len(rows[0]) == 4


def test_the_table_of_recipes_says_what_they_hold():
    folder = ROOT / "recipes" / "doge"
    english, chinese = (
        re.findall(r"^\| \[.*$", (folder / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        for name in ("README.md", "README_zh.md")
    )
    assert english == chinese
    listed = {}
    for row in english:
        link, _, data, length, _, rate = (cell.strip() for cell in row.strip("|").split(" | "))
        listed[re.search(r"\((.*)\)", link)[1]] = (data, length, float(rate.strip("| ")))
    found = {}
    for path in folder.rglob("config_full.yaml"):
        recipe = read_recipe(path)
        names = ", ".join(next(iter(entry)) for entry in recipe["datasets_and_ratios"])
        found[path.relative_to(folder).as_posix()] = (
            names,
            f"{recipe.get('max_length', 2048):,}",
            float(recipe["learning_rate"]),
        )
    assert listed == found


def count_parameters(words=()):
    config, overrides = parse_command_line(["--config", str(ROOT / "recipes" / "tiny" / "pretrain.yaml"), *words])
    model, *_ = load_arguments(config, {"output_dir": "runs/x", **overrides})
    with torch.device("meta"):
        return DogeForCausalLM(DogeConfig.from_preset(model.model_preset, **model.model_overrides)).num_parameters()


@pytest.mark.parametrize(
    ("name", "pattern", "unit"),
    [("README.md", r"a model of ([\d.]+)M\s+parameters", 1e6), ("README_zh.md", r"(\d+) 万参数模型", 1e4)],
)
def test_the_sizes_of_the_models_are_those_that_the_readmes_tell(name, pattern, unit):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert count_parameters() == pytest.approx(float(re.search(pattern, text)[1]) * unit, rel=0.05)
    for preset, told in re.findall(r"^\| (Doge-\d+M) \|.*?([\d.]+)M \|", text, flags=re.MULTILINE):
        with torch.device("meta"):
            found = DogeForCausalLM(DogeConfig.from_preset(preset)).num_parameters()
        assert found == pytest.approx(float(told) * 1e6, rel=0.01), preset
    command = next(line for line in text.splitlines() if line.startswith("small-doge train pretrain"))
    words = shlex.split(command)[3:]
    words = words[words.index("--model_overrides") : words.index("--model_overrides") + 2]
    config = read_recipe(ROOT / "recipes" / "tiny" / "pretrain.yaml")["model_overrides"]
    more = (8192 - config["vocab_size"]) * config["hidden_size"]
    assert count_parameters(words) == count_parameters() + more  # the tiny model with more words, and no other
