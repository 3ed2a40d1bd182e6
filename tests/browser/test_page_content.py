"""What the page shows of a message: Markdown, code, formulas, and nothing that runs."""

import json
import uuid

from tests.browser.page import answer_with, fetch, make_chat


ATTACKS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'></svg>",
    "[click](javascript:window.hit=1)",
    "![picture](http://192.0.2.1/leak.png)",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "$\\href{javascript:window.hit=1}{x}$ and $\\includegraphics{http://192.0.2.1/leak.png}$",
    '```"><img src=x onerror="window.hit=1">\ncode\n```',
    "<style>* { display: none }</style><form action='http://192.0.2.1/'><input name=a></form>",
    "| a |\n|---|\n| <a href='data:text/html,<script>1</script>'>x</a> |",
]


def test_markdown_code_maths_and_thoughts_are_shown(page):
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    answer_with(
        page,
        "<think>Let me see</think>\n**bold**\n\n```python\ndef f():\n    return 1\n```\n\n$x^2$ and \\[\\frac{1}{2}\\]",
    )
    page.ask("Show all")
    content = page.find("message-assistant").get_by_test_id("content")
    content.locator(".hljs-keyword").first.wait_for()
    content.locator(".katex-display").wait_for()
    assert content.locator("strong").inner_text() == "bold"
    assert content.locator(".katex").count() >= 2 and content.locator(".katex-display").count() == 1
    assert not content.get_by_text("Let me see").is_visible()
    content.get_by_text("Thoughts").click()
    assert content.get_by_text("Let me see").is_visible()
    content.get_by_test_id("copy-code").click()
    page.wait("async text => (await navigator.clipboard.readText()) === text", "def f():\n    return 1")


def test_formulas_that_are_wrong_or_have_styles_of_their_own_break_no_policy(page):
    answer_with(
        page,
        r"$x^$ $\vec{x}$ $\pmb{y}$ $\colorbox{red}{z}$ $\fcolorbox{blue}{red}{z}$ $\boxed{1}$ $\textcolor{red}{a}$",
    )
    page.ask("Show formulas")
    content = page.find("message-assistant").get_by_test_id("content")
    content.locator(".katex").nth(5).wait_for()
    wrong = content.locator(".katex-error")
    assert wrong.inner_text() == "x^" and "Expected group" in wrong.get_attribute("title")
    assert wrong.evaluate("one => getComputedStyle(one).color") == "rgb(204, 0, 0)"
    page.stay_clean()


def test_nothing_that_a_model_or_a_file_says_runs_or_loads(page, tmp_path):
    answer_with(page, "\n\n".join(ATTACKS))
    page.ask("Attack")
    attack = " ".join(ATTACKS)
    messages = [{"role": role, "content": text} for text in ATTACKS for role in ("user", "assistant")]
    for message, parent in zip(messages, [None, *messages], strict=False):
        message.update(id=str(uuid.uuid4()), parent_id=parent and parent["id"], model=attack)
    chat = make_chat(
        title=attack, messages=messages, current_id=messages[-1]["id"], tags=[attack], folder=attack[:90], model=attack
    )
    (tmp_path / "attack.json").write_text(json.dumps({"chats": [chat]}))
    page.find("import-file").set_input_files(tmp_path / "attack.json")
    page.wait_to_hear("1 imported")
    page.open(f"#{chat['id']}")
    page.wait_for_answers(len(ATTACKS))
    page.page.wait_for_load_state("networkidle")  # what would run late has run: colours and formulas come by imports
    page.page.locator(".katex").first.wait_for()
    page.settle()
    found = page.page.evaluate("""() => [...document.querySelectorAll(
      "article script, article img, article iframe, article style, article form, article svg[onload], [onerror]")].length""")
    assert found == 0
    links = page.page.eval_on_selector_all("article a", "links => links.map((link) => link.getAttribute('href'))")
    assert all(link is None or link.startswith("http") for link in links)
    fetch(f"{page.url}api/v1/chats/{chat['id']}", method="DELETE")
