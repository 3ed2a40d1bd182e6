"""Chat in Gradio with a model that `small-doge serve` serves: pip install gradio openai; python examples/gradio_chat.py.

The page of `small-doge serve` does more; this shows how little an own page takes.
"""

import os
from collections.abc import Iterator


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import gradio as gr
from openai import OpenAI


client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("SMALLDOGE_API_KEY", "none"),
)


def read_text(content: str | list[dict]) -> str:
    """Return a turn's text, which Gradio gives plain or in parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def answer(message: str, history: list[dict]) -> Iterator[str]:
    """Yield the answer as it grows."""
    messages = [{"role": turn["role"], "content": read_text(turn["content"])} for turn in history]
    messages.append({"role": "user", "content": message})
    model = client.models.list().data[0].id
    text = ""
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        yield text


if __name__ == "__main__":
    gr.ChatInterface(answer, title="SmallDoge").launch(server_name="127.0.0.1", server_port=7860)
