"""Answers that the API's description shows."""

from typing import Any


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 4,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 0},
}
COMMON = {"created": 1790000000, "model": "doge", "system_fingerprint": "small-doge"}
CHAT = {
    **COMMON,
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Ada lives in Paris.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
COMPLETION = {
    **COMMON,
    "id": "cmpl-1",
    "object": "text_completion",
    "choices": [{"index": 0, "text": " Paris.", "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
    "model": "doge",
    "usage": {"prompt_tokens": 6, "total_tokens": 6},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1790000000,
    "status": "completed",
    "model": "doge",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Ada lives in Paris.", "annotations": [], "logprobs": []},
            ],
        }
    ],
    "usage": {"input_tokens": 12, "output_tokens": 4, "total_tokens": 16},
}
INSPECTION = {
    "tokens": [
        {"id": 0, "piece": "<|begin_of_text|>", "logprob": None, "top": []},
        {"id": 36, "piece": "A", "logprob": -2.5, "top": [{"id": 55, "piece": "T", "logprob": -1.1}]},
    ],
    "num_layers": 1,
    "num_kv_heads": 1,
    "keep_window_size": 2048,
    "kept": [[{"positions": [0, 1], "scores": [0.1, 0.7]}]],
}


def show_answer(example: dict[str, Any], streams: bool = True) -> dict[int | str, dict[str, Any]]:
    """Describe a route's answer by an example, and say whether it may be a stream."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string", "description": "Events, with stream: true"}}
    return {200: {"description": "The answer", "content": content}}
