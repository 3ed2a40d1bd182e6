"""The page's raw text: probabilities, other tokens, what heads keep."""


def test_raw_text_shows_probabilities_and_goes_on_from_another_token(page):
    page.find("model-0").select_option("base")
    page.find("base-note").wait_for()  # a base model opens as raw text by itself
    page.set(max_tokens=12, temperature=0)
    page.find("raw-text").fill("Ada lives in")
    page.find("raw-text").press("Control+Enter")
    page.wait("document.querySelectorAll('[data-testid=token]').length === 12")
    page.find("raw-continue").wait_for()
    first = page.find("raw-text").input_value()
    assert first.startswith("Ada lives in") and len(first) > len("Ada lives in")
    shown = page.find("token").evaluate_all(
        "spans => spans.filter((s) => getComputedStyle(s).backgroundColor !== 'rgba(0, 0, 0, 0)').length"
    )
    assert shown == 12
    number = page.find("token").evaluate_all("spans => spans.findIndex((span) => /\\S/.test(span.textContent))")
    box = page.find("token").nth(number).bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.find("choice").nth(9).wait_for()
    assert page.find("choice").count() == 10
    page.click("choice", 1)
    page.wait("n => document.querySelectorAll('[data-testid=token]').length === n", number + 13)
    page.find("raw-continue").wait_for()
    second = page.find("raw-text").input_value()
    assert second != first
    page.find("raw-text").press("Control+z")
    page.wait("text => document.getElementById('raw-text').value === text", first)
    page.click("raw-redo")
    page.wait("text => document.getElementById('raw-text').value === text", second)
    page.reload()
    page.wait("n => document.querySelectorAll('[data-testid=token]').length === n", number + 13)
    assert page.find("raw-text").input_value() == second


def test_the_strip_shows_what_a_head_keeps(page):
    page.click("mode-raw")
    page.set(max_tokens=60, temperature=0)
    page.find("raw-text").fill("Ada lives in")
    page.click("raw-continue")
    page.wait("document.querySelectorAll('[data-testid=token]').length >= 58")
    page.find("raw-continue").wait_for()
    page.click("inside-toggle")
    page.find("inside").wait_for()
    assert page.find("kept").count() == 24 and page.find("gone").count() > 20  # keep_window_size
    titles = page.find("kept").evaluate_all("items => items.map((item) => item.title)")
    assert all("kept, score" in title for title in titles)
    page.find("layer").select_option(index=1)
    page.find("head").select_option(index=1)
    page.wait(
        "old => JSON.stringify(old) !== "
        "JSON.stringify([...document.querySelectorAll('[data-testid=kept]')].map((item) => item.title))",
        titles,
    )


def test_an_answer_can_be_looked_into_as_raw_text(page):
    page.set(max_tokens=10, temperature=0)
    page.ask("Where does Ada live?")
    answer = page.saved()["messages"][1]["content"]
    page.click("look-inside")
    page.wait("document.querySelector('[data-testid=raw-text]')?.value.includes('Where does Ada live?')")
    text = page.find("raw-text").input_value()
    assert text.startswith("<|begin_of_text|>") and text.endswith(answer)
