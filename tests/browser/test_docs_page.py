"""The page that describes the API: its scripts are our own, and its examples can be sent."""


def test_docs_list_the_routes_and_send_an_example(chromium, server):
    page = chromium.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server}docs")
    route = page.locator("details", has_text="/v1/chat/completions").first
    route.locator("summary").click()
    assert "temperature" in route.inner_text()
    route.locator("button").click()
    route.locator("pre", has_text="200").wait_for()
    assert all(url.startswith(server) for url in asked)
    page.close()
