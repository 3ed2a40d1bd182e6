"""`/api/v1/inspect`: what a model makes of a text."""

from typing import Annotated, Any, cast

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from ...inference import Engine, Token
from ...inference.prompt_readers import Scorer
from ..errors import ApiError
from ..generation import GenerationRequest
from ..state import ServerState
from ..streaming import respond
from .bodies import Body
from .messages import read_messages
from .openai_examples import INSPECTION, show_answer


class InspectBody(Body):
    """A text to look into, in one of three forms."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"content": "Ada lives in Paris.", "top": 3}]})

    model: str | None = None
    tokens: list[int] | None = None
    content: str | None = None
    messages: list[dict[str, Any]] | None = None
    top: Annotated[int, Field(ge=0, le=100)] = 10

    def to_request(self) -> GenerationRequest:
        """Return the request that all protocols share.

        Raises:
            ApiError: no text, or more than one form of it.
        """
        given = [name for name in ("tokens", "content", "messages") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ApiError(400, "send one of tokens, content and messages", "content")
        return GenerationRequest(
            self.model,
            prompts=[prompt for prompt in (self.tokens, self.content) if prompt is not None],
            messages=None if self.messages is None else read_messages(self.messages),
            names={"prompt": given[0]},
            make_reader=lambda: Scorer(self.top, with_keys=True),
        )


def make_inspect_router(state: ServerState) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/v1", tags=["Tokens"])

    @router.post("/inspect", responses=show_answer(INSPECTION, streams=False))
    async def inspect(body: InspectBody) -> Response:
        """Tell how likely each token was after the ones before it, and which tokens each head keeps at the end."""
        headers = body.check_fields()
        with await state.generator.start(body.to_request()) as generation:
            await generation.finish()
            scorer = cast(Scorer, generation.choices[0].request.reader)
            facts = generation.entry.describe()
            content = {
                "tokens": [_describe(generation.engine, token) for token in scorer.tokens],
                **{name: facts[name] for name in ("num_layers", "num_kv_heads", "keep_window_size")},
                "kept": [
                    [{"positions": head.positions, "scores": head.scores} for head in heads] for heads in scorer.kept
                ],
            }
        return respond(content, headers)

    return router


def _describe(engine: Engine, token: Token) -> dict[str, Any]:
    """Describe a token, and the likeliest ones in its place."""
    top = [
        {"id": token_id, "piece": engine.piece(token_id), "logprob": logprob}
        for token_id, logprob in token.top_logprobs.items()
    ]
    return {"id": token.id, "piece": engine.piece(token.id), "logprob": token.logprob, "top": top}
