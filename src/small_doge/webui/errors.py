"""Errors of the server, in the form of the protocol that the client speaks."""

import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from ..utils.errors import UserError
from ..utils.logging import get_logger


logger = get_logger(__name__)

# What the OpenAI and the Anthropic API call an error of a status.
OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An error that the client receives.

    Args:
        status: HTTP status.
        message: what is wrong and what to do.
        param: field of the request that is wrong.
        code: short name of the error, for programs.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, param, code, headers)  # all of it, so that it can be pickled
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message


def to_api_error(error: BaseException) -> ApiError:
    """Return what the client is told of an error; one that is our fault is logged with its traceback."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, str(error), code="invalid_request")
    if isinstance(error, RequestValidationError):
        return _explain_validation(error)
    if isinstance(error, HTTPException) and error.status_code == 404 and error.detail == "Not Found":
        return ApiError(404, "there is nothing at this path; the APIs begin with /v1 or /api, and /docs lists them")
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, RecursionError):
        return ApiError(400, "the request is nested too deeply", code="invalid_request")
    logger.error("a request failed", exc_info=error)
    return ApiError(500, f"the server failed with {type(error).__name__}; its log says where", code="internal_error")


def _explain_validation(error: RequestValidationError) -> ApiError:
    """Say in one sentence what is wrong with the first field that is."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return ApiError(400, f"the request is no JSON: {reason}", code="invalid_json")
    places = [_find_place(one, error.body) for one in errors]
    # A field of several types has an error for each of them: the one that went furthest is of the type that was meant.
    place = max((place for place in places if place[:1] == places[0][:1]), key=len)
    messages = [str(one["msg"]).removeprefix("Value error, ") for one in errors]
    said = "; or ".join(dict.fromkeys(said for said, other in zip(messages, places, strict=True) if other == place))
    if place:
        said = f"{'.'.join(map(str, place))}: {said}"
    elif first["type"] != "value_error":
        said = "the request's body must be a JSON object, sent with Content-Type: application/json"
    return ApiError(400, said, str(place[0]) if place else None, "invalid_request")


def _find_place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Return the field that an error is about and the way into it, by keys and positions that the client has sent.

    Names of types, which are on the way through fields of several types, are left out.
    """
    source, *parts = error["loc"]
    if source != "body":
        return parts
    place, value = parts[:1], body.get(parts[0]) if parts and isinstance(body, Mapping) else None
    for number, part in enumerate(parts[1:], start=2):
        is_missing = error["type"] == "missing" and number == len(parts)
        if isinstance(value, Mapping) and (part in value or is_missing):
            place, value = [*place, part], value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            place, value = [*place, part], value[part]
    return place


def is_anthropic(path: str) -> bool:
    """Tell whether a path belongs to the Anthropic API."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def make_request_id() -> str:
    """Return a name for a request of the Anthropic API, which its clients show with errors."""
    return f"req_{uuid.uuid4().hex}"


def describe_error(error: ApiError, path: str) -> dict[str, Any]:
    """Return the body of an error in the form of the protocol that a path belongs to."""
    if is_anthropic(path):
        kind = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    if path.startswith("/api/") and not path.startswith("/api/v1/"):  # Ollama's
        return {"error": error.message}
    kind = OPENAI_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def to_json(content: Any) -> str:
    """Write JSON in one line of ASCII, in which half characters, too, have a form."""
    return json.dumps(content, separators=(",", ":"))


def respond_with_error(error: ApiError, path: str) -> Response:
    """Return the response for an error."""
    content, headers = describe_error(error, path), error.headers
    if is_anthropic(path):
        content["request_id"] = make_request_id()
        headers = {**headers, "request-id": content["request_id"]}
    return Response(to_json(content), error.status, media_type="application/json", headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer every error in the form of its protocol."""

    async def handle(request: Request, error: Exception) -> Response:
        return respond_with_error(to_api_error(error), request.url.path)

    for kind in (ApiError, UserError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)
    # The handler above logs what is our fault, once; Starlette raises it again after that.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "Exception in ASGI application" not in record.getMessage()
    )
