"""The application: routes of all protocols, the page, and what stands before them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware import Middleware

from ..utils.logging import get_logger
from .chat_store import ChatStore
from .chat_tables import find_database
from .control import Broadcast, ControlPlane, LocalControl
from .errors import add_error_handlers
from .generation import Generator
from .metrics import Metrics
from .preset_store import PresetStore
from .registry import ModelRegistry
from .routes.anthropic import make_anthropic_router
from .routes.chats import make_chats_router
from .routes.inspect import make_inspect_router
from .routes.models import make_models_api_router
from .routes.ollama import make_ollama_router
from .routes.ollama_models import make_ollama_models_router
from .routes.openai_chat import make_chat_router
from .routes.openai_completions import make_completions_router
from .routes.openai_embeddings import make_embeddings_router
from .routes.openai_models import make_models_router
from .routes.openai_responses import make_responses_router
from .routes.page import add_page
from .routes.presets import make_presets_router
from .routes.system import make_system_router
from .routes.tokens import make_tokens_router
from .security import SecurityMiddleware
from .settings import ServeSettings
from .state import ServerState


logger = get_logger(__name__)

GRACE = 10.0  # seconds that running requests have when the server stops


def create_app(
    settings: ServeSettings,
    tell: Callable[[str], None] = logger.info,
    load_first: bool = False,
    broadcast: Broadcast | None = None,
) -> FastAPI:
    """Build the server's application.

    Args:
        settings: what to serve, to whom, within which limits.
        tell: is told what happens with models.
        load_first: whether the first model is loaded before the first request.
        broadcast: calls all replicas of the server, if there are others.

    Raises:
        UserError: a model does not exist, or the conversations' file can't be used.
    """
    keeps_chats = not settings.page_only  # a page elsewhere keeps its conversations here
    store = ChatStore(find_database(settings.chats)) if keeps_chats else None
    metrics = Metrics()
    registry = ModelRegistry(settings, tell)
    generator = Generator(settings, registry, metrics)
    control = ControlPlane(LocalControl(registry, metrics, generator), broadcast)
    state = ServerState(settings, registry, metrics, generator, control)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        if load_first and not settings.page_only:
            with await registry.acquire(None):
                pass
        yield
        await registry.close(GRACE)
        if store is not None:
            store.close()

    app = FastAPI(
        title="SmallDoge",
        version=version("small-doge"),
        lifespan=live,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses={"4XX": {"description": "What is wrong and what to do, in the form of the protocol"}},
        middleware=[Middleware(SecurityMiddleware, settings=settings, metrics=metrics)],
    )
    app.state.server = state
    add_error_handlers(app)
    app.include_router(make_system_router(state))
    if not settings.page_only:
        _add_api(app, state)
    if store is not None:
        app.include_router(make_chats_router(store))
        app.include_router(make_presets_router(PresetStore(store.database)))
    add_page(app, settings)
    return app


def _add_api(app: FastAPI, state: ServerState) -> None:
    """Add the routes of all protocols. The guides' server has the OpenAI API under /openai."""
    for prefix in ("/v1", "/openai", "/openai/v1"):
        for make in (
            make_models_router,
            make_chat_router,
            make_completions_router,
            make_responses_router,
            make_embeddings_router,
        ):
            app.include_router(make(state), prefix=prefix, include_in_schema=prefix == "/v1")
    for router in (
        make_anthropic_router(state),
        make_ollama_router(state),
        make_ollama_models_router(state),
        make_tokens_router(state),
        make_inspect_router(state),
        make_models_api_router(state),
    ):
        app.include_router(router)
