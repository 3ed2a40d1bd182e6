"""What the page is made of: files of pinned packages, unchanged, with their licences, and nothing from elsewhere."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import small_doge


STATIC = Path(small_doge.__file__).parent / "webui" / "static"
VENDOR = STATIC / "vendor"
PACKAGES = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
FILES = [file for package in PACKAGES for file in (*package["files"], package["license_file"])]
TEXTS = sorted(path for path in STATIC.rglob("*") if path.suffix in (".mjs", ".js", ".css", ".html", ".json"))
# Names of formats, which nothing fetches, and pages that comments and messages name.
NAMED_ONLY = re.compile(
    r"https?://(www\.w3\.org/|github\.com/|docs\.python\.org/|jinja\.palletsprojects\.com/|web\.dev/|127\.0\.0\.1|localhost)"
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["file"])
def test_a_file_is_the_one_that_was_taken(file):
    assert hashlib.sha256((VENDOR / file["file"]).read_bytes()).hexdigest() == file["sha256"]


def test_nothing_else_lies_there():
    found = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}
    assert found == {file["file"] for file in FILES} | {"vendor.json"}


def test_each_package_has_a_licence_and_one_version():
    assert all(
        package["license"] and (VENDOR / package["license_file"]["file"]).stat().st_size for package in PACKAGES
    )
    assert len({package["package"] for package in PACKAGES}) == len(PACKAGES)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", package["version"]) for package in PACKAGES)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_file_names_no_address_that_the_page_would_fetch(path):
    text = path.read_text(encoding="utf-8")
    strange = [url for url in re.findall(r"https?://[\w.-]+/?", text) if not NAMED_ONLY.match(url)]
    assert not strange
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|url\(["']?(?:https?:)?//""", text)
    if path.suffix == ".mjs":
        # Bare names would need an import map.
        named = re.findall(r"""(?:^|[;}\n])\s*(?:import|export)\b[^;'"()=]*["']([^"'\n]+)["']""", text)
        assert all(name.startswith(("./", "../")) for name in named), named


CODE = """
import { h } from "./preact.mjs";
import { useState } from "./preact-hooks.mjs";
import htm from "./htm.mjs";
import { marked } from "./marked.mjs";
import hljs from "./highlight.mjs";
import katex from "./katex/katex.mjs";
import { Template } from "./jinja.mjs";
import { Tokenizer } from "./tokenizers.mjs";
import purify from "./purify.mjs";
const html = htm.bind(h);
console.log(JSON.stringify([
  html`<p class="a">b</p>`.props.class, typeof useState, marked.parse("*a*"), hljs.highlight("x = 1", { language: "python" }).value,
  katex.renderToString("x^2").length > 100, new Template("{{ a }}").render({ a: "c" }), typeof Tokenizer, typeof purify,
]));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
def test_files_can_be_imported_without_an_import_map():
    done = subprocess.run(
        ["node", "--input-type=module", "-e", CODE], cwd=VENDOR, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    attribute, hooks, bold, code, maths, text, tokenizer, purify = json.loads(done.stdout)
    assert (attribute, hooks, text, tokenizer, purify) == ("a", "function", "c", "function", "function")
    assert bold == "<p><em>a</em></p>\n" and "hljs-number" in code and maths
