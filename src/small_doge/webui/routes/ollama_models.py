"""Models in the Ollama API: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`, and what this server does not do."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from ..errors import ApiError, to_json
from ..model_entry import ModelEntry
from ..model_facts import count_weights, make_digest, name_format, show_count
from ..model_files import read_json
from ..state import ServerState
from ..streaming import respond
from .ollama import LINES
from .ollama_input import ModelBody


FOREVER = "9999-12-31T23:59:59Z"  # a model stays until its memory is needed


def make_ollama_models_router(state: ServerState) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["Ollama"], strict_content_type=False)

    @router.head("/", include_in_schema=False)
    async def answer_probe() -> Response:
        """Tell that a server is here."""
        return Response()

    @router.head("/api/version", include_in_schema=False)
    @router.get("/api/version")
    async def get_version() -> dict[str, str]:
        """Return the version of this server."""
        return {"version": version("small-doge")}

    @router.head("/api/tags", include_in_schema=False)
    @router.get("/api/tags")
    def list_models() -> dict[str, Any]:
        """List the models."""
        state.registry.rescan()
        return {"models": [_describe(entry) for entry in state.registry.entries.values()]}

    @router.head("/api/ps", include_in_schema=False)
    @router.get("/api/ps")
    async def list_loaded() -> dict[str, Any]:
        """List the models in memory."""
        loaded = [status for status in await state.control.list_models() if status["num_loaded"]]
        return {"models": await run_in_threadpool(lambda: [_describe_loaded(state, status) for status in loaded])}

    @router.post("/api/show")
    def show_model(body: ModelBody) -> Response:
        """Describe a model: its template, its sampling options, its sizes."""
        entry = state.registry.find(body.model)
        return respond(_show(state, entry), body.check_fields())

    @router.post("/api/pull")
    def pull_model(body: ModelBody) -> Response:
        """Say that a model is there; none is downloaded."""
        state.registry.find(body.model)
        done = to_json({"status": "success"})
        return Response(
            done if body.stream is False else f"{done}\n",
            media_type="application/json" if body.stream is False else LINES,
            headers=body.check_fields(),
        )

    for method, path in (("POST", "push"), ("POST", "create"), ("POST", "copy"), ("DELETE", "delete")):
        router.add_api_route(f"/api/{path}", _refuse, methods=[method], include_in_schema=False)
    router.add_api_route("/api/blobs/{digest}", _refuse, methods=["HEAD", "POST"], include_in_schema=False)
    return router


async def _refuse() -> None:
    """Say how models come to this server."""
    raise ApiError(
        400,
        "this server offers the models that it was started with and those in its --models-dir; add, copy and delete their "
        "folders there",
        code="unsupported",
    )


def add_tag(name: str) -> str:
    """Return a name with a tag, which clients expect."""
    return name if ":" in name else f"{name}:latest"


def _describe(entry: ModelEntry) -> dict[str, Any]:
    """Describe a model as lists hold it."""
    facts, config = entry.describe(), read_json(entry.folder / "config.json") or {}
    family = config.get("model_type", "doge")
    return {
        "name": add_tag(entry.name),
        "model": add_tag(entry.name),
        "modified_at": datetime.fromtimestamp(entry.created, UTC).isoformat().replace("+00:00", "Z"),
        "size": facts["size_bytes"] or 0,
        "digest": make_digest(entry),
        "details": {
            "parent_model": "",
            "format": "onnx" if facts["path_kind"] == "export" else "safetensors",
            "family": family,
            "families": [family],
            "parameter_size": show_count(count_weights(entry, facts)),
            "quantization_level": name_format(facts, config),
        },
    }


def _describe_loaded(state: ServerState, status: dict[str, Any]) -> dict[str, Any]:
    described = _describe(state.registry.find(status["name"]))
    del described["modified_at"]
    return {
        **described,
        "size": status["memory_bytes"],
        "size_vram": 0,
        "expires_at": FOREVER,
        "context_length": status["max_length"] or status["trained_length"] or 0,
    }


def _show(state: ServerState, entry: ModelEntry) -> dict[str, Any]:
    """Describe a model at length."""
    described, facts = _describe(entry), entry.describe()
    config = read_json(entry.folder / "config.json") or {}
    template = _read_template(entry)
    sampling = state.settings.sampling
    options = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
    }
    family = described["details"]["family"]
    sizes = {
        "context_length": facts["max_length"] or facts["trained_length"],
        "block_count": facts["num_layers"],
        "embedding_length": config.get("hidden_size"),
        "feed_forward_length": config.get("intermediate_size"),
        "vocab_size": facts["vocab_size"],
        "attention.head_count": config.get("num_attention_heads"),
        "attention.head_count_kv": facts["num_kv_heads"],
    }
    info: dict[str, Any] = {
        "general.architecture": family,
        "general.parameter_count": count_weights(entry, facts),
        **{f"{family}.{name}": value for name, value in sizes.items() if value is not None},
    }
    lines = [f"{name:<30} {value:g}" for name, value in options.items()]
    lines += [f"{'stop':<30} {to_json(text)}" for text in sampling.stop]
    found = {"tools": bool(template), "thinking": "enable_thinking" in template, "embedding": True}
    return {
        "modelfile": f"# {entry.name} is no Ollama model: small-doge serves it from a folder.\n",
        "parameters": "\n".join(lines),
        "template": template,
        "details": described["details"],
        "model_info": info,
        "capabilities": ["completion", *(name for name, is_there in found.items() if is_there)],
        "modified_at": described["modified_at"],
    }


def _read_template(entry: ModelEntry) -> str:
    """Return a model's chat template; an empty text if it has none."""
    if entry.is_loaded:
        return str(getattr(entry.engine.tokenizer, "chat_template", None) or "")
    folder = entry.folder
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str((read_json(folder / "tokenizer_config.json") or {}).get("chat_template") or "")
