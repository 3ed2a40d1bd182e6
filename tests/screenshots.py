"""Pictures for the documents: the demo's report and the page of `small-doge serve`, taken from what `make demo` left.

    .venv/bin/python -m tests.screenshots [FOLDER OF THE DEMO]

It needs Chromium, and Pillow, which matplotlib brings. Pictures have few colours, so that they stay small.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as BrowserPage

from tests.browser.page import Page


IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PORT = 8911
ADDRESS = f"http://127.0.0.1:{PORT}/"
PATIENCE = 60  # seconds for the server to start


def save(page: BrowserPage, name: str, height: int) -> None:
    """Save the visible part of a page, down to a height, with 64 colours."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height})
    Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(IMAGES.parents[1])}: {path.stat().st_size / 1000:.0f} kB")


def show_report(browser: Browser, demo: Path) -> None:
    """Take the head of the report: scores by stage and the first answers."""
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    page.goto((demo / "report.html").resolve().as_uri())
    save(page, "report", 990)


def show_chat(browser: Browser) -> None:
    """Take two stages that answer side by side."""
    page = Page(browser.new_page(viewport={"width": 1100, "height": 560}), ADDRESS).open()
    page.click("compare")
    page.find("model-1").select_option("sft")
    page.ask("What is 23 + 14?", 2)
    save(page.page, "chat", 560)


def show_inside(browser: Browser) -> None:
    """Take a raw text: how likely each token was, and which tokens a head keeps."""
    page = Page(browser.new_page(viewport={"width": 1100, "height": 560}), ADDRESS).open()
    page.find("model-0").select_option("pretrain")
    if page.find("mode-raw").count():
        page.click("mode-raw")
    page.set(max_tokens=160, temperature=0)
    page.find("raw-text").fill("Ada lives in")
    page.click("raw-continue")
    page.find("raw-stop").wait_for()
    page.find("raw-continue").wait_for()
    page.click("inside-toggle")
    page.find("inside").wait_for()
    save(page.page, "inside", 560)


def main() -> None:
    """Start a server for the demo's models, and take the pictures."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    models = [f"{stage}={demo / stage}" for stage in ("grpo", "sft", "pretrain")]
    command = [Path(sys.executable).parent / "small-doge", "serve", *models, "--port", str(PORT)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "--chats", f"{folder}/chats.db"]) as server,
    ):
        try:
            for _ in range(PATIENCE):
                try:
                    urllib.request.urlopen(f"{ADDRESS}health", timeout=2)
                    break
                except OSError:
                    time.sleep(1)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM)
                show_report(browser, demo)
                show_chat(browser)
                show_inside(browser)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
